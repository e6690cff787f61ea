"""Bundles of the world with one thing wrong, each otherwise whole: sealed again, with golden rows recorded anew."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bundle.arrays import load_array
from bundle.golden import GoldenRow, load_golden, save_golden
from bundle.manifest import MANIFEST, read_manifest
from service.scorer import Graph
from tests.service.nodes import Nodes
from tests.service.test_loading import reseal

GRAPH = "finerank.onnx"
SIDE = 500
"""Two products of matrices of this size take about 10 ms more a request."""


def corrupted(folder: Path) -> None:
    """One bit of the weights is another."""
    content = bytearray((folder / GRAPH).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / GRAPH).write_bytes(content)


def truncated(folder: Path) -> None:
    """The ads' fields end early, as an interrupted copy leaves them."""
    path = folder / "ads/fields.npy"
    path.write_bytes(path.read_bytes()[:-100])


def of_another_format(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text.replace('"format": 2', '"format": 3'))


def with_nan_weights(folder: Path) -> None:
    """The golden rows are those of the graph before."""
    change_graph(folder, lambda model: set_constant(model, 0.01, np.nan), record=False)


def with_nan_vectors(folder: Path) -> None:
    """Which golden rows do not know."""
    scales = np.load(folder / "ads/scales.npy")
    np.save(folder / "ads/scales.npy", np.full_like(scales, np.nan))
    reseal(folder, "ads/scales.npy")


def of_another_contract(folder: Path) -> None:
    """The graph reads what the manifest does not state."""

    def weather(model: onnx.ModelProto) -> None:
        model.graph.input.append(onnx.helper.make_tensor_value_info("weather", onnx.TensorProto.FLOAT, [1]))

    change_graph(folder, weather, record=False)


def too_slow(folder: Path) -> None:
    """The same scores, after some work that changes nothing."""

    def work(model: onnx.ModelProto) -> None:
        g = Nodes()
        g.nodes, prefix = [], "slow_"
        start = g("ReduceMean", "ad_numbers", keepdims=0)
        matrix = g.constant(np.full((SIDE, SIDE), 1e-3), np.float32)
        product = g("MatMul", g("Mul", matrix, start), matrix)
        nothing = g("Mul", g("ReduceMean", g("MatMul", product, matrix), keepdims=0), g.constant(0.0, np.float32))
        g("Add", "fast", nothing, output="logits")
        ours = {name for node in g.nodes for name in node.output} - {"logits"} | {each.name for each in g.constants}
        for node in g.nodes:
            node.input[:] = [prefix + name if name in ours else name for name in node.input]
            node.output[:] = [prefix + name if name in ours else name for name in node.output]
        for each in g.constants:
            each.name = prefix + each.name
        for node in model.graph.node:
            node.output[:] = ["fast" if name == "logits" else name for name in node.output]
        model.graph.node.extend(g.nodes)
        model.graph.initializer.extend(g.constants)

    change_graph(folder, work)


def surer(folder: Path) -> None:
    """All ads are thought to be clicked far more often."""
    change_graph(folder, lambda model: set_constant(model, -3.0, 1.0))


def of_another_taste(folder: Path) -> None:
    """The brand decides, the higher ones first."""
    change_graph(folder, lambda model: set_constant(model, 0.01, 5.0))


def set_constant(model: onnx.ModelProto, old: float, new: float) -> None:
    """Replace the one scalar constant of this value."""
    found = [
        each
        for each in model.graph.initializer
        if numpy_helper.to_array(each).shape == () and np.isclose(float(numpy_helper.to_array(each)), old)
    ]
    assert len(found) == 1, f"{len(found)} constants are {old}"
    found[0].CopyFrom(numpy_helper.from_array(np.asarray(new, dtype=np.float32), found[0].name))


def change_graph(folder: Path, edit: Callable[[onnx.ModelProto], None], *, record: bool = True) -> None:
    """Edit the fine-ranker, seal it, and record its golden rows anew."""
    model = onnx.load(folder / GRAPH)
    edit(model)
    onnx.save(model, folder / GRAPH)
    reseal(folder, GRAPH)
    if record:
        graph = Graph(folder, read_manifest(folder).stages.finerank.graph, "cpu", 1)
        fields, numbers = load_array(folder / "ads/fields.npy"), load_array(folder / "ads/numbers.npy")
        rows = [
            GoldenRow(row.common, row.ads, row.query, row.offset, graph.run(feeds)["logits"])
            for row in load_golden(folder)
            for feeds in [
                row.common.feeds() | {"ads": fields[row.ads].astype(np.int64), "ad_numbers": numbers[row.ads]}
            ]
        ]
        save_golden(folder, rows)
        reseal(folder, "golden.npz")
