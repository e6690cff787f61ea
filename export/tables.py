"""Embedding tables of a graph in fewer bytes.

    fp32   Gather(table, ids)
    fp16   Gather(halves, ids) -> Cast
    int8   Gather(codes, ids) -> Cast -> Mul Gather(scales, ids)

int8 has one scale a row. One scale for the whole table, which onnxruntime's quantize_dynamic uses, lets the largest row
decide how coarse all others are: errors of 15 % of a row were measured, where a scale a row gives 0.4 %.
"""

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.precision import Number

Float32 = npt.NDArray[np.float32]
LARGEST_HALF = float(np.finfo(np.float16).max)


def table_names(graph: onnx.GraphProto) -> list[str]:
    """The float matrices of which all that is ever read are rows, by Gather."""
    uses: dict[str, list[bool]] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            uses.setdefault(name, []).append(node.op_type == "Gather" and place == 0 and axis == 0)
    given_out = {value.name for value in graph.output}
    return [
        each.name
        for each in graph.initializer
        if each.data_type == TensorProto.FLOAT
        and len(each.dims) == 2
        and each.name not in given_out
        and all(uses.get(each.name, [False]))
    ]


def store_tables(model: onnx.ModelProto, stored: Number) -> onnx.ModelProto:
    """A copy of `model`, weights in memory, whose tables are stored as asked. ValueError when they cannot be."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if stored != "fp32":
        for name in table_names(changed.graph):
            _store(changed.graph, name, stored)
    return changed


def quantise_rows(table: Float32) -> tuple[npt.NDArray[np.int8], Float32]:
    """Codes int8[rows, d] and scales float32[rows, 1] with codes · scales ≈ table: off by at most half a scale.

    Symmetric, so 0 stays 0 exactly, and with it the row of padding. Scales are float32, not fp16: embeddings that start
    at 1e-4 have scales of 1e-6, which fp16 holds to 3 % only.
    """
    largest = np.abs(table).max(axis=1, keepdims=True, initial=0.0)
    scales = (largest / 127).astype(np.float32)
    scales[scales == 0] = 1.0  # rows of zeros
    return np.clip(np.rint(table / scales), -127, 127).astype(np.int8), scales


def _store(graph: onnx.GraphProto, name: str, stored: Number) -> None:
    """Replace one table and every Gather that reads it."""
    place = next(i for i, each in enumerate(graph.initializer) if each.name == name)
    table = numpy_helper.to_array(graph.initializer[place])
    if not np.isfinite(table).all():
        raise ValueError(f"table {name!r} holds values that are not finite")
    del graph.initializer[place]
    if stored == "int8":
        codes, scales = quantise_rows(table)
        added = [numpy_helper.from_array(codes, f"{name}.codes"), numpy_helper.from_array(scales, f"{name}.scales")]
    else:
        if (largest := float(np.abs(table).max(initial=0.0))) > LARGEST_HALF:
            raise ValueError(f"table {name!r} holds {largest:.3g}, fp16 ends at {LARGEST_HALF:g}")
        added = [numpy_helper.from_array(table.astype(np.float16), f"{name}.halves")]
    graph.initializer.extend(added)
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        graph.node.extend(_gather(node, added) if node.op_type == "Gather" and node.input[0] == name else [node])


def _gather(node: onnx.NodeProto, stored: list[onnx.TensorProto]) -> list[onnx.NodeProto]:
    """The nodes that do what `node` did."""
    ids, result = node.input[1], node.output[0]
    few, wide = f"{result}.stored", f"{result}.wide"
    gather = helper.make_node("Gather", [stored[0].name, ids], [few], name=f"{result}.gather")
    if len(stored) == 1:
        return [gather, helper.make_node("Cast", [few], [result], name=f"{result}.cast", to=TensorProto.FLOAT)]
    scale = f"{result}.scale"
    return [
        gather,
        helper.make_node("Cast", [few], [wide], name=f"{result}.cast", to=TensorProto.FLOAT),
        helper.make_node("Gather", [stored[1].name, ids], [scale], name=f"{result}.gather_scale"),
        helper.make_node("Mul", [wide, scale], [result], name=f"{result}.scaled"),
    ]
