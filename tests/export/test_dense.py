"""Products in int8: near the fp32 ones, as integer products of onnxruntime, and the same in any other kernel."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.dense import Product, Ranges, in_int8, products, with_ranges
from export.weights import outline, save_graph
from tests.export.graphs import Float32, constant, model, node, open_session, run

M, K, N = 30, 24, 20
RANDOM = np.random.default_rng(0)


def uneven(rows: int, columns: int, axis: int) -> Float32:
    """A weight whose rows (axis 0) or columns are of very different size."""
    size = 10.0 ** RANDOM.uniform(-2, 0, (rows, 1) if axis == 0 else (1, columns))
    return (RANDOM.normal(size=(rows, columns)) * size).astype(np.float32)


X, B = (RANDOM.normal(size=shape).astype(np.float32) for shape in ((M, K), (3, K, N)))
RIGHT, LEFT, BIAS = uneven(K, N, 1), uneven(M, K, 0), RANDOM.normal(size=N).astype(np.float32)


def single(kind: str) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A graph of one product and what it is given."""
    f = TensorProto.FLOAT
    if kind == "weight second":
        graph = model([node("MatMul", ["x", "w"], "y")], [constant("w", RIGHT)], {"x": (f, ["m", K])}, "y", ["m", N])
        return graph, {"x": X}
    if kind == "weight first":
        inputs = {"x": (f, ["l", K, "n"])}
        return model([node("MatMul", ["w", "x"], "y")], [constant("w", LEFT)], inputs, "y", ["l", M, "n"]), {"x": B}
    if kind == "no weight":
        inputs = {"a": (f, ["m", K]), "b": (f, [K, "n"])}
        return model([node("MatMul", ["a", "b"], "y")], [], inputs, "y", ["m", "n"]), {"a": X, "b": B[0]}
    weights = [constant("w", np.ascontiguousarray(RIGHT.T)), constant("c", BIAS)]
    gemm = node("Gemm", ["x", "w", "c"], "y", transB=1)
    return model([gemm], weights, {"x": (f, ["m", K])}, "y", ["m", N]), {"x": X}


KINDS = ("weight second", "weight first", "no weight", "gemm")
every_kind = pytest.mark.parametrize("kind", KINDS)


def ranges_of(graph: onnx.ModelProto, feeds: dict[str, Any]) -> Ranges:
    names = [name for product in products(graph.graph) for name in product.activations]
    found = run(with_ranges(graph, names), feeds)
    return {name: (float(a), float(b)) for name, a, b in zip(names, found[0::2], found[1::2], strict=True)}


@every_kind
def test_products_are_near_in_every_row_and_column(kind: str, tmp_path: Path) -> None:
    graph, feeds = single(kind)
    (product,) = products(graph.graph)
    changed = in_int8(graph, tmp_path, [product], ranges_of(graph, feeds))
    onnx.checker.check_model(changed, full_check=True)
    (one,), (two,) = run(graph, feeds), run(changed, feeds)
    axis = 1 if kind == "weight first" else 0
    size = np.abs(one).max(axis=axis, keepdims=True) if kind != "no weight" else np.abs(one).max()
    if kind == "weight first":
        size = np.abs(one).max(axis=(0, 2), keepdims=True)
    assert 0 < (np.abs(one - two) / size).max() < 0.03, "of its own row or column, however small that is"


@every_kind
def test_onnxruntime_computes_them_in_integers(kind: str, tmp_path: Path) -> None:
    graph, feeds = single(kind)
    changed = in_int8(graph, tmp_path, products(graph.graph), ranges_of(graph, feeds))
    open_session(changed, written=tmp_path / "optimised.onnx")
    operators = [each.op_type for each in onnx.load(str(tmp_path / "optimised.onnx")).graph.node]
    assert "MatMulIntegerToFloat" in operators
    assert not {"MatMul", "Gemm", "DequantizeLinear"} & set(operators)


@every_kind
def test_other_kernels_give_the_same(kind: str, tmp_path: Path) -> None:
    graph, feeds = single(kind)
    changed = in_int8(graph, tmp_path, products(graph.graph), ranges_of(graph, feeds))
    (one,), (two,) = run(changed, feeds), run(changed, feeds, optimised=False)
    np.testing.assert_allclose(one, two, atol=1e-4)


def test_zero_stays_zero(tmp_path: Path) -> None:
    for kind in KINDS[:3]:
        graph, feeds = single(kind)
        changed = in_int8(graph, tmp_path, products(graph.graph), ranges_of(graph, feeds))
        (found,) = run(changed, {name: np.zeros_like(each) for name, each in feeds.items()})
        assert not found.any(), kind


def test_a_tensor_read_by_two_products_is_quantised_once(tmp_path: Path) -> None:
    f = TensorProto.FLOAT
    nodes = [
        node("MatMul", ["x", "w"], "y"),
        node("MatMul", ["x", "v"], "z"),
        node("Sub", ["y", "z"], "gap"),
    ]
    weights = [constant("w", RIGHT), constant("v", uneven(K, N, 1))]
    graph = model(nodes, weights, {"x": (f, ["m", K])}, "gap", ["m", N])
    changed = in_int8(graph, tmp_path, products(graph.graph), {"x": (float(X.min()), float(X.max()))})
    assert [each.op_type for each in changed.graph.node].count("QuantizeLinear") == 1
    np.testing.assert_allclose(run(changed, {"x": X})[0], run(graph, {"x": X})[0], atol=0.3)


def test_only_the_chosen_are_changed(tmp_path: Path) -> None:
    graph, _ = single("weight second")
    assert in_int8(graph, tmp_path, [], {}) == graph


def test_large_weights_are_read_from_their_file(tmp_path: Path) -> None:
    wide = RANDOM.normal(size=(K, 1 << 15)).astype(np.float32)
    inputs = {"x": (TensorProto.FLOAT, ["m", K])}
    save_graph(
        model([node("MatMul", ["x", "w"], "y")], [constant("w", wide)], inputs, "y", ["m", 1 << 15]),
        tmp_path / "g.onnx",
    )
    light = outline(tmp_path / "g.onnx")
    changed = in_int8(light, tmp_path, products(light.graph), {"x": (float(X.min()), float(X.max()))})
    (found,) = run(changed, {"x": X})
    np.testing.assert_allclose(found, X @ wide, atol=0.02 * float(np.abs(X @ wide).max()))


def test_what_is_no_product_of_matrices_is_left_out() -> None:
    f = TensorProto.FLOAT
    nodes = [
        node("MatMul", ["w", "vector"], "a"),
        node("MatMul", ["stack", "x"], "b"),
        node("Gemm", ["x", "w"], "c", transA=1),
        node("Gemm", ["x", "w"], "d", alpha=2.0),
        node("Gemm", ["x", "x"], "e", transB=1),
        node("MatMul", ["w", "w"], "f"),
        *(node("ReduceSum", [name], f"sum_{name}", keepdims=0) for name in "abcdef"),
        node("Sum", [f"sum_{name}" for name in "abcdef"], "all"),
    ]
    square = np.eye(K, dtype=np.float32)
    weights = [constant("w", square), constant("stack", square[None])]
    inputs = {"vector": (f, [K]), "x": (f, [K, K])}
    assert products(model(nodes, weights, inputs, "all", []).graph) == []


def test_products_say_what_they_multiply() -> None:
    found = [products(single(kind)[0].graph)[0] for kind in KINDS]
    assert found == [
        Product("node_y", "x", "w", "w", 2),
        Product("node_y", "w", "x", "w", 3),
        Product("node_y", "a", "b", None, 2),
        Product("node_y", "x", "w", "w", 2),
    ]
    assert [each.activations for each in found] == [("x",), ("x",), ("a", "b"), ("x",)]
    assert [each.shared for each in found] == ["w", "w", "b", "w"]


def test_ranges_are_the_smallest_and_largest() -> None:
    graph, feeds = single("no weight")
    assert ranges_of(graph, feeds) == {
        "a": (float(X.min()), float(X.max())),
        "b": (float(B[0].min()), float(B[0].max())),
    }
