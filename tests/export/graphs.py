"""Small graphs made node by node, and how to run one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bundle.manifest import GraphSpec, TensorSpec

Float32 = npt.NDArray[np.float32]
ROWS, WIDTH = 40, 8


def constant(name: str, values: npt.NDArray[Any]) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"node_{output}", **attributes)


def model(
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    inputs: Mapping[str, tuple[int, list[Any]]],
    output: str,
    axes: list[Any],
) -> onnx.ModelProto:
    """`inputs`: name -> element type and axes; `output` is of floats with `axes`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, axes)],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made


def table(seed: int = 0, rows: int = ROWS, width: int = WIDTH, spread: float = 4) -> Float32:
    """Rows of very different size, over `spread` powers of 10; the first is padding."""
    random = np.random.default_rng(seed)
    values = random.normal(size=(rows, width)) * 10.0 ** random.uniform(-spread, 0, (rows, 1))
    values[0] = 0
    return values.astype(np.float32)


def embedder(weights: Float32, width: int = 5) -> onnx.ModelProto:
    """int64 `ids` [n, 2] -> sum over the pair of its rows @ weight, float32 [n, width]: `logits`."""
    matrix = np.random.default_rng(1).normal(size=(weights.shape[1], width)).astype(np.float32)
    return model(
        [
            node("Gather", ["table", "ids"], "rows"),
            node("ReduceSum", ["rows", "axis"], "sum", keepdims=0),
            node("MatMul", ["sum", "matrix"], "logits"),
        ],
        [constant("table", weights), constant("axis", np.array([1])), constant("matrix", matrix)],
        {"ids": (TensorProto.INT64, ["n", 2])},
        "logits",
        ["n", width],
    )


SPEC = GraphSpec(
    file="graph.onnx",
    inputs=(TensorSpec(name="ids", dtype="int64", shape=("n", 2)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=("n", 5)),),
)


def run(graph: onnx.ModelProto | Path, feeds: dict[str, Any], *, optimised: bool = True) -> list[Any]:
    session = open_session(graph, optimised=optimised)
    found: list[Any] = session.run(None, feeds)
    return found


def open_session(graph: onnx.ModelProto | Path, *, optimised: bool = True, written: Path | None = None) -> Any:
    """`written`: where to leave the optimised graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if written is not None:
        options.optimized_model_filepath = str(written)
    content = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
