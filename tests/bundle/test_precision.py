"""The manifest keeps what a graph is stored and computed in; `show` says it, `verify` misses absent weights."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from bundle.command import main
from bundle.errors import ManifestError
from bundle.folder import write_bundle
from bundle.manifest import Manifest, read_manifest
from bundle.precision import Deviation, Precision, Trial
from tests.bundle import small

OFF = Deviation(requests=64, candidates=32_000, logit_max=0.02, pctr_max=0.003, pctr_share=0.0007, top10=0.996)
REDUCED = Precision(
    asked="auto",
    tables="int8",
    dense="int8",
    int8_nodes=("node_3", "node_4"),
    deviation=OFF,
    trials=(
        Trial(what="tables in int8", bytes=100, time_ratio=1.01, deviation=OFF, taken=True, why="saves 300 MiB"),
        Trial(what="node_5 in int8", bytes=100, time_ratio=1.2, deviation=None, taken=False, why="not finite"),
    ),
)


def manifest(precision: Precision = REDUCED, weights: str | None = None) -> Manifest:
    plain = small.manifest()
    graph = plain.stages.finerank.graph.model_copy(update={"precision": precision, "weights": weights})
    finerank = plain.stages.finerank.model_copy(update={"graph": graph})
    return plain.model_copy(update={"stages": plain.stages.model_copy(update={"finerank": finerank})})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, manifest(), small.fill)
    found = read_manifest(folder).stages
    assert found.finerank.graph.precision == REDUCED
    assert found.prerank.query.precision == Precision()


def test_missing_keys_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, manifest(), small.fill)
    text = (folder / "manifest.json").read_text()
    for key, message in (
        ('"asked": "auto",', r"precision\.asked"),
        ('"time_ratio": 1.01,', "Field required"),
        ('"weights": null,', r"query\.weights"),
    ):
        assert key in text
        (folder / "manifest.json").write_text(text.replace(key, ""))
        with pytest.raises(ManifestError, match=message):
            read_manifest(folder)


def test_anything_below_fp32_is_reduced() -> None:
    assert not Precision(asked="auto").is_reduced
    assert Precision(tables="fp16").is_reduced
    assert Precision(dense="int8").is_reduced
    assert Precision(tables="int4").is_reduced
    assert not Precision(given={"ad": "int4"}).is_reduced, "the network itself computes so"
    for key in ("tables", "dense"):
        with pytest.raises(ValidationError):
            Precision.model_validate({key: "int2"})
    with pytest.raises(ValidationError):
        Precision.model_validate({"dense": "int4"})


def test_show_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(write_bundle(tmp_path, manifest(), small.fill))]) == 0
    printed = capsys.readouterr().out
    assert "dqm of click, 2 numbers in int8, fp32 tables, fp32 products\n" in printed
    assert "din of like, int8 tables, int8 products (2), pCTR off by 0.07%\n" in printed


def test_verify_misses_absent_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path, manifest(weights="finerank.weights"), small.fill)
    assert main(["verify", str(folder)]) == 1
    assert "the stages name 'finerank.weights', which is not among the files" in capsys.readouterr().err

    def with_weights(to: Path) -> None:
        small.fill(to)
        (to / "finerank.weights").write_bytes(b"weights")

    whole = manifest(weights="finerank.weights").model_copy(update={"bundle_id": "whole"})
    assert main(["verify", str(write_bundle(tmp_path, whole, with_weights))]) == 0
