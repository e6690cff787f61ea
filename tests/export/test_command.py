"""`adrank export` from the outside."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import export.deviation
from bundle.folder import open_bundle
from bundle.precision import Precision
from export.assemble import Trained
from export.command import described, main
from export.parity import TOLERANCE
from tests.bundle.small import manifest


def arguments(trained: Trained, out: Path, **other: Path) -> list[str]:
    folders = {"finerank": trained.finerank.folder, "prerank": trained.prerank.folder, "qscore": trained.qscore.folder}
    folders |= {"prepared": trained.data.folder, "out": out} | other
    return [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("adrank export: ")
    return lines[0]


def test_a_bundle_is_written_and_named(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--keep-retrieval", "90", "--keep-qscore", "60", "--keep-prerank", "30", "--users", "4"]
    out, figures = tmp_path / "bundles", tmp_path / "m.json"
    assert main([*arguments(trained, out), *sizes, "--json", str(figures)]) == 0
    (folder,) = out.iterdir()
    assert re.fullmatch(r"tiny-din-\d{8}-\d{6}", folder.name)
    opened = open_bundle(folder)
    stages = opened.manifest.stages
    assert (stages.retrieval.keep, stages.qscore.keep, stages.prerank.keep) == (90, 60, 30)
    assert opened.manifest.users == 4
    printed = capsys.readouterr().out
    assert str(folder) in printed
    assert "torch = ONNX over 8 requests with 512 candidates" in printed
    assert len(printed.splitlines()) == 2, "of fp32 graphs there is nothing to say"
    measured = json.loads(figures.read_text())
    assert measured.keys() == {"parity.pctr", "parity.query"}
    assert 0 <= measured["parity.pctr"] <= TOLERANCE


def test_tables_of_the_network_are_said() -> None:
    graph = manifest().stages.finerank.graph
    assert list(described(graph)) == []
    own = graph.model_copy(update={"precision": Precision(given={"tag": "int8", "ad": "int4"})})
    assert list(described(own)) == ["  finerank.onnx: tables as the network has them: ad int4, tag int8"]


def test_precision_is_said_and_measured(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "m.json"
    options = ["--id", "small", "--precision", "int8", "--keep-prerank", "30", "--json", str(figures)]
    assert main([*arguments(trained, tmp_path / "out"), *options]) == 0
    stages = open_bundle(tmp_path / "out/small").manifest.stages
    printed, measured = capsys.readouterr().out, json.loads(figures.read_text())
    for stage, graph in (("query", stages.prerank.query), ("finerank", stages.finerank.graph)):
        assert (graph.precision.asked, graph.precision.tables) == ("int8", "int8")
        assert re.search(rf"^  {graph.file}: tables in int8, .*; pCTR off by \d", printed, re.MULTILINE)
        assert graph.precision.deviation is not None
        assert measured[f"precision.{stage}.pctr_max"] == graph.precision.deviation.pctr_max
        for trial in graph.precision.trials:
            assert f"    {'+' if trial.taken else '-'} {trial.what}: {trial.why}; " in printed
    assert printed.count("+ tables in int8: asked for; ") == 2


def test_a_precision_that_is_too_far_ends_with_1(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.deviation, "PCTR_MAX", 1e-9)
    assert main([*arguments(trained, tmp_path / "out"), "--id", "far", "--precision", "fp16"]) == 1
    assert "query.onnx in fp16 is too far from fp32" in refusal(capsys)
    assert not (tmp_path / "out/far").exists()


def test_no_other_precision_is_known(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments(trained, tmp_path / "out"), "--precision", "int4"])
    assert "choose from" in capsys.readouterr().err


def test_graphs_that_differ_end_with_1(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(shutil.copytree(trained.prerank.folder, tmp_path / "dqm"))
    state = torch.load(folder / "best.pt", weights_only=True)
    state["user_tower.out.bias"].fill_(torch.inf)
    torch.save(state, folder / "best.pt")
    assert main([*arguments(trained, tmp_path / "out", prerank=folder), "--id", "bad"]) == 1
    assert "differ by" in refusal(capsys)
    assert not (tmp_path / "out/bad").exists()


def test_what_is_missing_is_named(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("finerank", "prerank", "qscore"):
        assert main(arguments(trained, tmp_path / "out", **{name: tmp_path / f"no-{name}"})) == 2
        assert str(tmp_path / f"no-{name}/config.json") in refusal(capsys)
    assert main(arguments(trained, tmp_path / "out", prepared=tmp_path / "no-data")) == 2
    assert str(tmp_path / "no-data") in refusal(capsys)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_in_the_wrong_place(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(trained, tmp_path / "out", qscore=trained.prerank.folder)) == 2
    assert refusal(capsys).endswith("holds a dqm, a qscore is needed there")


def test_an_existing_bundle(trained: Trained, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments(trained, exported.parent), "--id", exported.name]) == 2
    assert str(exported) in refusal(capsys)


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--keep-retrieval", "0", "retrieval"),
        ("--keep-prerank", "-3", "prerank"),
        ("--users", "-1", "users"),
        ("--id", "a b", "bundle_id"),
        ("--id", "../up", "bundle_id"),
    ],
)
def test_values_that_make_no_sense_are_named(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, key: str
) -> None:
    assert main([*arguments(trained, tmp_path / "out"), option, value]) == 2
    line = refusal(capsys)
    assert f"{key}: " in line
    assert value in line
    assert not (tmp_path / "out").exists()
