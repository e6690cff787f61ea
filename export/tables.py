"""Embedding tables of a graph in fewer bytes.

    fp32   Gather(table, ids)
    fp16   Gather(halves, ids) -> Cast
    int8   Gather(codes, ids) -> Cast -> Mul Gather(scales, ids)
    int4   Gather(bytes, ids) -> Cast -> both halves of each byte -> Concat -> Sub 8 -> Mul Gather(scales, ids)

int8 and int4 have one scale a row (bundle/rounding.py). One scale for the whole table, which onnxruntime's
quantize_dynamic uses, lets the largest row decide how coarse all others are: errors of 15 % of a row were measured,
where a scale a row gives 0.4 %.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundle.precision import Stored
from bundle.rounding import pack, quantise

Float32 = npt.NDArray[np.float32]
LARGEST_HALF = float(np.finfo(np.float16).max)


def table_names(graph: onnx.GraphProto) -> list[str]:
    """The float matrices of which all that is ever read are rows, by Gather. Not those of one column: a weight an id
    with a scale would take more than before, and scales of tables that are in int8 already stay exact."""
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
        and each.dims[1] > 1
        and each.name not in given_out
        and all(uses.get(each.name, [False]))
    ]


def store_tables(model: onnx.ModelProto, stored: Stored) -> onnx.ModelProto:
    """A copy of `model`, weights in memory, whose tables are stored as asked. ValueError when they cannot be."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if stored != "fp32":
        for name in table_names(changed.graph):
            _store(changed.graph, name, stored)
    return changed


def _store(graph: onnx.GraphProto, name: str, stored: Stored) -> None:
    """Replace one table and every Gather that reads it."""
    place = next(i for i, each in enumerate(graph.initializer) if each.name == name)
    table = numpy_helper.to_array(graph.initializer[place])
    if not np.isfinite(table).all():
        raise ValueError(f"table {name!r} holds values that are not finite")
    del graph.initializer[place]
    if stored in ("int8", "int4"):
        codes, scales = quantise(table, stored)
        kept = pack(codes) if stored == "int4" else codes
        added = [
            numpy_helper.from_array(kept, f"{name}.codes"),
            numpy_helper.from_array(scales[:, None], f"{name}.scales"),
        ]
        if stored == "int4":
            added += _constants(name, table.shape[1])
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
    scale, constants = f"{result}.scale", [each.name for each in stored[2:]]
    codes, apart = (f"{result}.codes", _apart(result, wide, constants)) if constants else (wide, [])
    return [
        gather,
        helper.make_node("Cast", [few], [wide], name=f"{result}.cast", to=TensorProto.FLOAT),
        *apart,
        helper.make_node("Gather", [stored[1].name, ids], [scale], name=f"{result}.gather_scale"),
        helper.make_node("Mul", [codes, scale], [result], name=f"{result}.scaled"),
    ]


def _constants(name: str, dimension: int) -> list[onnx.TensorProto]:
    """What `_apart` needs for the rows of a table, in its order."""
    floats = {"sixteenth": 1 / 16, "sixteen": 16.0, "eight": 8.0}
    lengths = {"begin": 0, "end": dimension, "last": -1}
    return [numpy_helper.from_array(np.array(value, np.float32), f"{name}.{key}") for key, value in floats.items()] + [
        numpy_helper.from_array(np.array([value], np.int64), f"{name}.{key}") for key, value in lengths.items()
    ]


def _apart(result: str, both: str, constants: list[str]) -> list[onnx.NodeProto]:
    """`result`.codes from bytes as floats: low halves, then high halves, less 8. Bytes are whole numbers below 256, so
    this is exact, and it is as fast as BitShift."""
    sixteenth, sixteen, eight, begin, end, last = constants

    def node(operator: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [f"{result}.{name}"], name=f"{result}.to_{name}", **attributes)

    return [
        node("Mul", [both, sixteenth], "shifted"),
        node("Floor", [f"{result}.shifted"], "high"),
        node("Mul", [f"{result}.high", sixteen], "raised"),
        node("Sub", [both, f"{result}.raised"], "low"),
        node("Concat", [f"{result}.low", f"{result}.high"], "all", axis=-1),
        node("Slice", [f"{result}.all", begin, end, last], "row"),
        node("Sub", [f"{result}.row", eight], "codes"),
    ]
