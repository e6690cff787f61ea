"""An ONNX graph, node by node."""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

TYPES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}


class Nodes:
    """Collects nodes and constants of a graph; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, values: Any, dtype: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def column(self, tensor: str, i: int, axis: int = 1) -> str:
        return self("Gather", tensor, self.constant(i, np.int64), axis=axis)

    def number(self, tensor: str, i: int, weight: float) -> str:
        """weight * tensor[i] as float32."""
        value = self("Cast", self.column(tensor, i, 0), to=TensorProto.FLOAT)
        return self("Mul", value, self.constant(weight, np.float32))

    def model(self, name: str, inputs: Any, outputs: Any) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(n, TYPES[d], s) for n, d, s in inputs],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model)
        return model
