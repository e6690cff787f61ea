"""A whole graph in fp16, for processors that compute in it (GPU providers). Its inputs and outputs stay as they were.

Written out because the common converters clamp constants silently, to 1e4 or to 65,504. Here a constant beyond fp16 is
an error, except the one that stands for "never": the -1e30 by which a softmax leaves padding out becomes fp16's lowest
value, whose exponential is 0 as well.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bundle.encoding import Float32
from bundle.manifest import GraphSpec
from export.parity import Feeds, Run

LOWEST, LARGEST = float(np.finfo(np.float16).min), float(np.finfo(np.float16).max)
NEVER = -1e29
"""Constants at or below this are masks, not values."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model`, weights in memory, that computes in fp16. ValueError names a constant fp16 cannot hold."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(_halves(numpy_helper.to_array(tensor), tensor.name), tensor.name))
    for node in graph.node:
        _convert(node)
    _keep_interface(graph)
    del graph.value_info[:]  # the types in it are no longer true
    onnx.checker.check_model(changed, full_check=True)
    return changed


def in_half(folder: Path, graph: GraphSpec) -> Run:
    """The graph with every value rounded to fp16, as on a GPU. Slow: 0.1 s for 64 candidates.

    onnxruntime on a CPU computes chains of fp16 nodes in fp32, and would not show that a value in between overflows.
    """
    evaluator = ReferenceEvaluator(str(folder / graph.file))
    names = [each.name for each in graph.inputs]

    def run(feeds: Feeds) -> list[Float32]:
        with np.errstate(all="ignore"):  # what overflows shows in the result
            found = evaluator.run(None, {name: feeds[name] for name in names})
        return [np.asarray(each, np.float32) for each in found]

    return run


def _halves(values: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float16]:
    wide = np.where(values <= NEVER, LOWEST, values)
    if not np.isfinite(wide).all() or float(np.abs(wide).max(initial=0.0)) > LARGEST:
        raise ValueError(f"constant {name!r} holds {float(np.abs(wide).max()):.3g}, fp16 ends at {LARGEST:g}")
    return wide.astype(np.float16)


def _convert(node: onnx.NodeProto) -> None:
    """Constants in a node's attributes, and casts to float."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            halves = _halves(numpy_helper.to_array(attribute.t), node.name)
            attribute.t.CopyFrom(numpy_helper.from_array(halves, attribute.t.name))
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _keep_interface(graph: onnx.GraphProto) -> None:
    """Casts between the graph's own float inputs and outputs and what is inside."""
    first, last = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inside = f"{value.name}.half"
            _rename(graph, value.name, inside, outputs=False)
            first.append(
                helper.make_node("Cast", [value.name], [inside], name=f"{inside}.cast", to=TensorProto.FLOAT16)
            )
    for value in graph.output:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            inside = f"{value.name}.half"
            _rename(graph, value.name, inside, outputs=True)
            last.append(helper.make_node("Cast", [inside], [value.name], name=f"{inside}.cast", to=TensorProto.FLOAT))
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(graph: onnx.GraphProto, old: str, new: str, *, outputs: bool) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == old:
                node.input[i] = new
        for i, name in enumerate(node.output):
            if outputs and name == old:
                node.output[i] = new
