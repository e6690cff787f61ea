"""Tables in int8 keep every row to half a step, whatever its size; padding stays exactly 0."""

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bundle.precision import Stored
from bundle.rounding import quantise
from export.tables import store_tables, table_names
from tests.export.graphs import ROWS, WIDTH, Float32, constant, embedder, model, node, run, table

IDS = np.stack([np.arange(ROWS), np.arange(ROWS)[::-1]], axis=1)


def restored(values: Float32) -> Float32:
    codes, scales = quantise(values, "int8")
    return codes.astype(np.float32) * scales[:, None]


def test_small_rows_are_kept_as_well_as_large_ones() -> None:
    values = table()
    size = np.linalg.norm(values[1:], axis=1)
    errors = np.linalg.norm(restored(values)[1:] - values[1:], axis=1) / size
    assert errors.max() < 0.01
    step = np.abs(values).max() / 127
    per_tensor = np.linalg.norm(np.rint(values[1:] / step) * step - values[1:], axis=1) / size
    assert per_tensor.max() > 0.9, "which is what one scale for all would do"


@pytest.mark.parametrize(
    ("stored", "kind", "share"), [("int8", np.int8, 0.01), ("fp16", np.float16, 0.001), ("int4", np.uint8, 0.1)]
)
def test_the_graph_gives_nearly_the_same(stored: Stored, kind: type, share: float) -> None:
    exact = embedder(table())
    changed = store_tables(exact, stored)
    onnx.checker.check_model(changed, full_check=True)
    kinds = {each.name: onnx.helper.tensor_dtype_to_np_dtype(each.data_type) for each in changed.graph.initializer}
    assert "table" not in kinds
    assert kinds.pop("matrix") == np.float32
    assert kind in kinds.values()
    (one,), (two,) = run(exact, {"ids": IDS}), run(changed, {"ids": IDS})
    assert two.dtype == np.float32
    assert 0 < np.abs(one - two).max() <= share * np.abs(one).max()
    (padding,) = run(changed, {"ids": np.zeros((1, 2), np.int64)})
    assert not padding.any()
    assert any(each.name == "table" for each in exact.graph.initializer), "the graph given is left alone"


@pytest.mark.parametrize("width", [4, 5])
def test_int4_gives_the_codes_of_the_row_times_its_scale(width: int) -> None:
    values = table(width=width)
    changed = store_tables(lookup(values), "int4")
    codes, scales = quantise(values, "int4")
    expected = codes * scales[:, None]
    np.testing.assert_array_equal(run(changed, {"ids": np.arange(ROWS)})[0], expected)
    sizes = {each.name: math.prod(each.dims) for each in changed.graph.initializer}
    assert (sizes["table.codes"], sizes["table.scales"]) == (ROWS * -(-width // 2), ROWS)


def test_fp32_is_left_as_it_is() -> None:
    assert store_tables(embedder(table()), "fp32") == embedder(table())


@pytest.mark.parametrize("stored", ["int8", "int4", "fp16"])
def test_a_weight_an_id_is_left_as_it_is(stored: Stored) -> None:
    weights = lookup(table(width=1))
    assert table_names(weights.graph) == []
    assert store_tables(weights, stored) == weights


def lookup(values: Float32) -> onnx.ModelProto:
    """Rows of a table, and nothing else."""
    inputs = {"ids": (TensorProto.INT64, ["n"])}
    return model(
        [node("Gather", ["table", "ids"], "rows")], [constant("table", values)], inputs, "rows", ["n", values.shape[1]]
    )


def test_one_table_read_twice_is_stored_once() -> None:
    two = model(
        [
            node("Gather", ["table", "a"], "x"),
            node("Gather", ["table", "b"], "y", axis=0),
            node("Sub", ["x", "y"], "gap"),
        ],
        [constant("table", table())],
        {"a": (TensorProto.INT64, ["n"]), "b": (TensorProto.INT64, ["n"])},
        "gap",
        ["n", WIDTH],
    )
    changed = store_tables(two, "int8")
    assert [each.name for each in changed.graph.initializer] == ["table.codes", "table.scales"]
    a, b = np.arange(ROWS), np.roll(np.arange(ROWS), 1)
    np.testing.assert_allclose(run(changed, {"a": a, "b": b})[0], run(two, {"a": a, "b": b})[0], atol=0.02)


def test_what_is_not_only_looked_up_by_row_is_no_table() -> None:
    weights = [
        constant("columns", table(1, WIDTH, WIDTH)),
        constant("multiplied", table(2, WIDTH, WIDTH)),
        constant("ids_of", np.arange(6).reshape(3, 2)),
        constant("vector", np.ones(9, np.float32)),
    ]
    nodes = [
        node("Gather", ["columns", "ids"], "by_column", axis=1),
        node("Gather", ["multiplied", "ids"], "row"),
        node("MatMul", ["row", "multiplied"], "product"),
        node("Gather", ["ids_of", "ids"], "whole_numbers"),
        node("Gather", ["vector", "ids"], "number"),
        node("ReduceSum", ["by_column"], "a", keepdims=0),
        node("ReduceSum", ["product"], "b", keepdims=0),
        node("ReduceSum", ["number"], "c", keepdims=0),
        node("Sum", ["a", "b", "c"], "all"),
    ]
    graph = model(nodes, weights, {"ids": (TensorProto.INT64, ["n"])}, "all", []).graph
    assert table_names(graph) == []
    assert table_names(embedder(table()).graph) == ["table"]


def test_what_a_number_cannot_hold_is_named() -> None:
    values = table()
    values[3, 2] = 1e5
    with pytest.raises(ValueError, match=r"table 'table' holds 1e\+05, fp16 ends at 65504"):
        store_tables(embedder(values), "fp16")
    values[3, 2] = np.nan
    with pytest.raises(ValueError, match="table 'table' holds values that are not finite"):
        store_tables(embedder(values), "int8")
