"""Bundles of every precision are served; weights beside a graph are part of what is checked."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.weights
from bundle.errors import GoldenError, IntegrityError
from bundle.folder import write_bundle
from bundle.golden import load_golden
from bundle.manifest import MANIFEST, read_manifest
from bundle.precision import Asked
from export.assemble import FunnelSettings, Trained, assemble
from export.tables import store_tables
from export.weights import open_graph, save_graph
from service.loading import load_bundle
from tests.service.conftest import post
from tests.service.world import settings_for

SIZES = FunnelSettings(retrieval=120, qscore=80, prerank=40, finerank=20, interests=3, per_interest=10)


@pytest.fixture(scope="module", params=["fp32", "int8", "fp16", "auto"])
def reduced(request: pytest.FixtureRequest, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each precision, every weight above 1 kB beside its graph."""
    asked: Asked = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.weights, "MAPPED", 1 << 10)
        folder, _ = assemble(trained, tmp_path_factory.mktemp("bundles"), f"in-{asked}", SIZES, precision=asked)
    return folder


def test_it_is_proved_and_served(reduced: Path) -> None:
    settings = settings_for(reduced)
    loaded = load_bundle(reduced, settings)
    manifest = loaded.bundle.manifest
    assert loaded.proof.requests == 8
    assert loaded.proof.logit_deviation <= manifest.golden.logit_tolerance
    for graph in (manifest.stages.prerank.query, manifest.stages.finerank.graph):
        assert f"in-{graph.precision.asked}" == reduced.name
        assert graph.weights in manifest.files
    user = next(iter(loaded.bundle.users.ids())) if loaded.bundle.users else ""
    answer = post(settings, "/v1/rank", {"user_id": user, "k": 5}, loaded)
    assert (len(answer["ads"]), answer["degraded"]) == (5, [])


def test_it_says_what_it_is(reduced: Path, exported: Path) -> None:
    asked = reduced.name.removeprefix("in-")
    manifest = read_manifest(reduced)
    exact, rows = load_golden(exported), load_golden(reduced)
    for graph, name in ((manifest.stages.prerank.query, "query"), (manifest.stages.finerank.graph, "logits")):
        found = graph.precision
        gap = max(float(np.abs(getattr(a, name) - getattr(b, name)).max()) for a, b in zip(rows, exact, strict=True))
        assert (gap > 0) == found.is_reduced == (found.deviation is not None)
        assert gap < 0.2
        if asked != "auto":
            assert found.tables == asked
        if asked in ("int8", "auto"):
            assert found.trials
            assert (found.dense == "int8") == bool(found.int8_nodes)


def copy(reduced: Path, to: Path) -> Path:
    return Path(shutil.copytree(reduced, to / reduced.name))


def test_missing_or_altered_weights_are_refused(reduced: Path, tmp_path: Path) -> None:
    folder = copy(reduced, tmp_path)
    weights = folder / "finerank.weights"
    whole = weights.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    for content, words in ((bytes(changed), "finerank.weights: sha256"), (whole[:-1], "finerank.weights: .* bytes")):
        weights.write_bytes(content)
        with pytest.raises(IntegrityError, match=words):
            load_bundle(folder, settings_for(folder))
    weights.unlink()
    with pytest.raises(IntegrityError, match=r"files are missing: \['finerank\.weights'\]"):
        load_bundle(folder, settings_for(folder))


def test_a_graph_of_another_precision_is_refused(exported: Path, tmp_path: Path) -> None:
    """The golden rows are those of the graph that ships, and of no other."""
    manifest = read_manifest(exported).model_copy(update={"bundle_id": "swapped"})

    def fill(folder: Path) -> None:
        shutil.copytree(exported, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        save_graph(store_tables(open_graph(folder / "finerank.onnx"), "int8"), folder / "finerank.onnx")

    folder = write_bundle(tmp_path, manifest, fill)
    assert any(
        each.data_type == onnx.TensorProto.INT8 for each in open_graph(folder / "finerank.onnx").graph.initializer
    )
    with pytest.raises(
        GoldenError, match=r"finerank\.onnx, golden row 0, logits: differs .* at most 0\.0001 is allowed"
    ):
        load_bundle(folder, settings_for(folder))
