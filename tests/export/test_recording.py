"""Golden rows of reduced graphs are their own outputs, and only where another processor would give the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import export.recording
from bundle.golden import GoldenRow, load_golden
from bundle.manifest import GraphSpec, Manifest, read_manifest
from bundle.precision import Precision
from export.half import to_half
from export.parity import GOLDEN_TOLERANCE, ParityError
from export.recording import REDUCED_TOLERANCE, recorded, tolerance
from export.tables import store_tables
from export.weights import open_graph, save_graph
from tests.market import Market

HALF = Precision(asked="fp16", tables="fp16", dense="fp16")
INT8_TABLES = Precision(asked="int8", tables="int8")


@pytest.fixture
def manifest(exported: Path) -> Manifest:
    return read_manifest(exported)


@pytest.fixture
def rows(exported: Path) -> list[GoldenRow]:
    return load_golden(exported)


@pytest.fixture
def folder(exported: Path, manifest: Manifest, tmp_path: Path) -> Path:
    """The graphs alone."""
    for graph in (manifest.stages.prerank.query, manifest.stages.finerank.graph):
        save_graph(open_graph(exported / graph.file), tmp_path / graph.file)
    return tmp_path


def change(graph: GraphSpec, precision: Precision) -> GraphSpec:
    return graph.model_copy(update={"precision": precision})


def test_of_fp32_graphs_torchs_outputs_stay(
    rows: list[GoldenRow], manifest: Manifest, folder: Path, market: Market
) -> None:
    query, fine = manifest.stages.prerank.query, manifest.stages.finerank.graph
    assert recorded(rows, query, fine, folder, market.data) == rows


def test_of_reduced_graphs_their_own_are_taken(
    rows: list[GoldenRow], manifest: Manifest, folder: Path, market: Market
) -> None:
    query, fine = manifest.stages.prerank.query, manifest.stages.finerank.graph
    save_graph(store_tables(open_graph(folder / fine.file), "int8"), folder / fine.file)
    found = recorded(rows, query, change(fine, INT8_TABLES), folder, market.data)
    for before, after in zip(rows, found, strict=True):
        assert after.query is before.query
        assert 0 < np.abs(after.logits - before.logits).max() < 0.25
    save_graph(to_half(open_graph(folder / query.file)), folder / query.file)
    found = recorded(rows, change(query, HALF), fine, folder, market.data)
    for before, after in zip(rows, found, strict=True):
        assert after.logits is before.logits
        assert 0 < np.abs(after.query - before.query).max() < 0.02


def test_what_fp16_hides_on_a_cpu_is_refused(
    rows: list[GoldenRow], manifest: Manifest, folder: Path, market: Market
) -> None:
    """A value in between overflows on a GPU; onnxruntime on a CPU keeps it in fp32."""
    query, fine = manifest.stages.prerank.query, manifest.stages.finerank.graph
    model = to_half(open_graph(folder / fine.file))
    last = next(node for node in model.graph.node if node.output[0] == "logits")
    for name, value in (("up", 60_000.0), ("down", 1 / 60_000)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float16), name))
        for i in range(2):
            output = f"{name}{i}"
            model.graph.node.insert(
                len(model.graph.node) - 1, onnx.helper.make_node("Mul", [last.input[0], name], [output])
            )
            last.input[0] = output
    assert last.op_type == "Cast"
    save_graph(model, folder / fine.file)
    with pytest.raises(ParityError, match=r"finerank\.onnx: computed in another way an output changes by (nan|inf|\d)"):
        recorded(rows, query, change(fine, HALF), folder, market.data)


def test_a_difference_between_kernels_is_held_against_the_tolerance(
    rows: list[GoldenRow], manifest: Manifest, folder: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, fine = manifest.stages.prerank.query, manifest.stages.finerank.graph
    save_graph(to_half(open_graph(folder / query.file)), folder / query.file)
    monkeypatch.setattr(export.recording, "REDUCED_TOLERANCE", 1e-9)
    with pytest.raises(ParityError, match=r"query\.onnx: .* at most 1e-09 is allowed"):
        recorded(rows, change(query, HALF), fine, folder, market.data)


def test_tolerances(manifest: Manifest) -> None:
    graph = manifest.stages.finerank.graph
    assert tolerance(graph) == tolerance(change(graph, INT8_TABLES)) == GOLDEN_TOLERANCE
    assert tolerance(change(graph, HALF)) == tolerance(change(graph, Precision(dense="int8"))) == REDUCED_TOLERANCE
