"""A bundle with further fine-rankers of real checkpoints: proved, measured, and refused when it is no ladder."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

from bundle.command import main as bundle_command
from bundle.errors import ManifestError
from bundle.folder import open_bundle
from bundle.golden import load_golden
from bundle.manifest import MANIFEST, read_manifest
from export.assemble import FunnelSettings, Trained, assemble
from export.command import main
from export.ladder import LadderError, check_rungs
from export.parity import GOLDEN_TOLERANCE, ParityError
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError
from models.networks.cost import cost_of_graph
from models.train import train_one
from service.loading import load_bundle
from tests.market import DIN, Market, make_config
from tests.service.conftest import post
from tests.service.test_deadline import slow
from tests.service.world import settings_for

SIZES = FunnelSettings(retrieval=120, qscore=80, prerank=40, finerank=20, interests=3, per_interest=10)
LARGE = {"attention_hidden": [48, 24], "hidden": [32, 16]}
"""Many times the work of the tiny DIN, which has that of a GwEN without attention: no noise changes their order."""


@pytest.fixture(scope="module")
def full(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(market, tmp_path_factory.mktemp("full"), "full", DIN | LARGE)


@pytest.fixture(scope="module")
def gwen(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(market, tmp_path_factory.mktemp("gwen"), "gwen", {"kind": "gwen", "embedding": 4, "hidden": [4]})


def checkpoint(market: Market, folder: Path, name: str, model: dict[str, Any]) -> Checkpoint:
    train_one(make_config(name, model, epochs=1), market.data, folder / name, seed=1, progress=False)
    return open_checkpoint(folder / name)


@pytest.fixture(scope="module")
def parts(trained: Trained, full: Checkpoint, gwen: Checkpoint) -> Trained:
    return replace(trained, finerank=full, ladder={"light": trained.finerank, "gwen": gwen})


@pytest.fixture(scope="module")
def laddered(parts: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(parts, tmp_path_factory.mktemp("laddered"), "ladder", SIZES, users=25)[0]


def test_every_rung_is_described_and_measured(laddered: Path, parts: Trained) -> None:
    stage = read_manifest(laddered).stages.finerank
    assert [(name, model) for name, model, _ in stage.rungs()] == [("full", "din"), ("light", "din"), ("gwen", "gwen")]
    assert [rung.graph.file for rung in stage.ladder] == ["finerank-light.onnx", "finerank-gwen.onnx"]
    checkpoints = (parts.finerank, *parts.ladder.values())
    for (_, _, worth), each in zip(stage.rungs(), checkpoints, strict=True):
        cost = cost_of_graph(each.network())
        assert (worth.multiply_adds, worth.request_multiply_adds) == (cost.candidate, cost.request)
        assert worth.work() == cost.request + 500 * cost.candidate
        assert worth.quality["auc"] == each.metrics["test.auc"]
        assert 0 < worth.p50_ms <= worth.p99_ms
    assert stage.ladder[0].position is not None, "the tiny DIN knows positions"
    assert stage.ladder[1].position is None


def test_golden_rows_have_every_rungs_logits(laddered: Path, parts: Trained) -> None:
    bundle = open_bundle(laddered)
    for rung in bundle.manifest.stages.finerank.ladder:
        session = ort.InferenceSession(str(laddered / rung.graph.file))
        for row in load_golden(laddered):
            feeds: dict[str, Any] = dict(row.common.feeds()) | {
                "ads": bundle.ads.fields[row.ads].astype(np.int64),
                "ad_numbers": bundle.ads.numbers[row.ads],
            }
            (logits,) = session.run(None, {each.name: feeds[each.name] for each in rung.graph.inputs})
            np.testing.assert_allclose(row.ladder[rung.name], logits, atol=GOLDEN_TOLERANCE)
            assert np.abs(row.ladder[rung.name] - row.logits).max() > 0.01, "another network"


def test_it_is_served_rung_by_rung(laddered: Path) -> None:
    """Scores of each rung are those that the golden rows' network gives: the service replayed them when it loaded."""
    bundle = open_bundle(laddered)
    ids = [bundle.ads.index.value_of(row) for row in range(2, 12)]
    found = {}
    for late, rung in (((), "full"), (("finerank",), "light"), (("finerank", "finerank.light"), "gwen")):
        loaded = load_bundle(laddered, settings := settings_for(laddered))
        slow(loaded, *late)
        answer = post(settings, "/v1/score", {"user_id": "nobody", "ads": ids}, loaded)
        assert answer["rung"] == rung
        found[rung] = answer["pctr"]
        pinned = settings_for(laddered, ladder=rung)
        assert post(pinned, "/v1/score", {"user_id": "nobody", "ads": ids})["pctr"] == found[rung]
    assert found["full"] != found["light"] != found["gwen"]


def test_show_and_verify_speak_of_rungs(laddered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle_command(["show", str(laddered), "--json", str(tmp_path / "b.json")]) == 0
    printed = capsys.readouterr().out
    for words in ("ladder, 500 candidates", "  full         din", "  light        din", "  gwen         gwen"):
        assert words in printed
    figures = json.loads((tmp_path / "b.json").read_text())
    assert figures["bundle.ladder.full.multiply_adds"] > figures["bundle.ladder.light.multiply_adds"]
    assert bundle_command(["verify", str(laddered)]) == 0
    copy = Path(shutil.copytree(laddered, tmp_path / "copy"))
    (copy / "finerank-gwen.onnx").write_bytes(b"something else")
    assert bundle_command(["verify", str(copy)]) == 1
    assert "finerank-gwen.onnx" in capsys.readouterr().err


def test_a_manifest_whose_rungs_are_no_ladder_is_refused(laddered: Path, tmp_path: Path) -> None:
    def refused(edit: Any, words: str) -> None:
        copy = tmp_path / "m"
        copy.mkdir(exist_ok=True)
        content = json.loads((laddered / MANIFEST).read_text())
        edit(content["stages"]["finerank"])
        (copy / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(ManifestError, match=words):
            read_manifest(copy)

    refused(lambda stage: stage["ladder"].reverse(), "rung 'light' is not cheaper than 'gwen' above it")
    refused(lambda stage: stage["ladder"][1].update(name="light"), "two rungs are called 'light'")
    refused(lambda stage: stage["ladder"][1].update(name="full"), "called 'full'; these names are taken")
    refused(lambda stage: stage["ladder"][1]["worth"].update(p50_ms=1e6), "'gwen' is not faster than 'light'.*1000000")
    refused(lambda stage: stage.update(worth=None), "a ladder of 2 rungs, but no worth of the full")


def test_a_rung_that_is_not_cheaper_is_refused_with_the_numbers(
    trained: Trained, full: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"finerank": trained.finerank.folder, "prerank": trained.prerank.folder, "qscore": trained.qscore.folder}
    places = [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]
    places += ["--prepared", str(trained.data.folder), "--out", str(tmp_path / "out"), "--id", "x"]
    assert main([*places, "--rung", f"dear={full.folder}"]) == 2
    said = capsys.readouterr().err
    dear, cheap = (
        cost.request + 500 * cost.candidate for cost in map(cost_of_graph, (full.network(), trained.finerank.network()))
    )
    assert f"rung 'dear' is not cheaper than 'full' above it: {dear:,} multiply-adds" in said
    assert f"'full' needs {cheap:,}" in said
    assert not list((tmp_path / "out").glob("*"))
    assert main([*places, "--rung", f"a={full.folder}", "--rung", f"a={full.folder}"]) == 2
    assert "two rungs are called 'a'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*places, "--rung", "nothing"])
    assert "'nothing' is not NAME=DIR" in capsys.readouterr().err


def test_names_and_data_are_checked_before_anything_is_computed(parts: Trained) -> None:
    def check(ladder: Mapping[str, Checkpoint], kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            check_rungs(ladder, parts.finerank, parts.data)

    (light, _) = parts.ladder.values()
    check({"Light": light}, LadderError, "rung 'Light': a name is a small letter")
    check({"off": light}, LadderError, "a rung is called 'off'; these names are taken")
    check(
        {"light": replace(light, data_fingerprint="0" * 64)}, ConfigError, "rung 'light'.*trained on data 000000000000"
    )
    with pytest.raises(ConfigError, match="a Qscore is a table, it has no network"):
        assemble(replace(parts, ladder={"q": parts.qscore}), Path("nowhere"), "x", SIZES)


def test_a_rung_that_differs_from_torch_fails_the_export(parts: Trained, gwen: Checkpoint, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gwen.folder, tmp_path / "gwen"))
    state = torch.load(folder / "best.pt", weights_only=True)
    state["mlp.out.bias"].fill_(torch.nan)
    torch.save(state, folder / "best.pt")
    with pytest.raises(ParityError, match="rung 'gwen': torch and ONNX differ by nan in pCTR"):
        assemble(replace(parts, ladder={"gwen": open_checkpoint(folder)}), tmp_path / "out", "x", SIZES)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
