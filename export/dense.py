"""Matrix products of a graph in int8: static quantisation, written as QuantizeLinear and DequantizeLinear (QDQ).

    weight second   X @ W     W int8, one scale a column; X uint8
    weight first    W @ X     W = r · W', one factor r a row; W' uint8 with one scale, X uint8; then · r
    no weight       A @ B     both uint8; both depend on the request

onnxruntime turns Dequantize, Dequantize, MatMul into one integer product, but only with one scale a matrix, or one a
column of a constant second factor; hence the factor r. Its own quantize_static puts the scales of a weight that comes
first along the axis that is summed over, which no integer product can have; such a product stays in fp32. It also stays
in fp32 when an Add follows, with which onnxruntime joins it first; hence a Reshape to the same shape in between.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.weights import weight

Matrix = npt.NDArray[np.float32]
Ranges = dict[str, tuple[float, float]]
"""Tensor -> the smallest and largest value seen of it."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product that may be computed in int8."""

    node: str
    first: str
    second: str
    weight: str | None
    """Which of the two is a weight of the graph."""
    rank: int
    """Axes of the result."""

    @property
    def shared(self) -> str:
        """What products of the same kind have in common: their weight, or their second factor."""
        return self.weight or self.second

    @property
    def activations(self) -> tuple[str, ...]:
        """The factors whose range must be known."""
        return tuple(name for name in (self.first, self.second) if name != self.weight)


def products(graph: onnx.GraphProto) -> list[Product]:
    """MatMul nodes of float matrices, and the plain Gemm: no transposed first factor, no factors but 1.

    Products with a vector are left out: nothing but the weight's bytes could be saved there.
    """
    ranks = _ranks(graph)
    weights = {each.name: len(each.dims) for each in graph.initializer if each.data_type == TensorProto.FLOAT}
    constants = {each.name for each in graph.initializer}
    found = []
    for node in graph.node:
        first, second = (*node.input, "", "")[:2]
        if node.op_type not in ("MatMul", "Gemm") or (node.op_type == "Gemm" and not _is_plain(node, second, weights)):
            continue
        constant = [name for name in (first, second) if name in constants]
        matrices = all(ranks.get(name, 0) > 1 for name in (first, second))
        if matrices and len(constant) < 2 and all(weights.get(name) == 2 for name in constant):
            rank = max(ranks[first], ranks[second])
            found.append(Product(node.name, first, second, constant[0] if constant else None, rank))
    return found


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    """Axes of every tensor whose shape can be inferred."""
    inferred = onnx.shape_inference.infer_shapes(helper.make_model(graph)).graph
    values = [*inferred.value_info, *inferred.input]
    ranks = {each.name: len(each.type.tensor_type.shape.dim) for each in values}
    return ranks | {each.name: len(each.dims) for each in graph.initializer}


def _is_plain(node: onnx.NodeProto, second: str, weights: dict[str, int]) -> bool:
    """A Gemm that is X @ W (+ C), W maybe transposed."""
    values = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = not values.get("transA") and values.get("alpha", 1.0) == values.get("beta", 1.0) == 1.0
    return plain and (second in weights or not values.get("transB"))


def with_ranges(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy of `model` whose outputs are the smallest and the largest value of each tensor, in turn."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in names:
        for operator in ("ReduceMin", "ReduceMax"):
            result = f"{name}.{operator}"
            changed.graph.node.append(helper.make_node(operator, [name], [result], keepdims=0))
            changed.graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, []))
    return changed


def in_int8(model: onnx.ModelProto, folder: Path, chosen: Iterable[Product], ranges: Ranges) -> onnx.ModelProto:
    """A copy of `model`, whose large weights are in `folder`, with the chosen products in int8."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    rewriter = _Rewriter({each.name: each for each in model.graph.initializer}, folder, ranges)
    by_node = {product.node: product for product in chosen}
    for node in model.graph.node:
        if product := by_node.get(node.name):
            rewriter.product(node, product)
        else:
            rewriter.nodes.append(node)
    changed.graph.initializer.extend(rewriter.constants.values())
    del changed.graph.node[:]
    changed.graph.node.extend(rewriter.nodes)
    return changed


class _Rewriter:
    """Collects the nodes of the new graph and the constants they need, each once."""

    def __init__(self, weights: dict[str, onnx.TensorProto], folder: Path, ranges: Ranges) -> None:
        self.weights, self.folder, self.ranges = weights, folder, ranges
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def product(self, node: onnx.NodeProto, product: Product) -> None:
        """What `node` did, in int8."""
        result, factors, rows = node.output[0], [], None
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        for place, name in enumerate((product.first, product.second)):
            if name != product.weight:
                codes = self._activation(name)
            elif place == 0:
                *codes, rows = self._first_weight(name)
            else:
                codes = self._second_weight(name, transposed)
            factors.append(f"{result}.factor{place}")
            # Each product has one of its own, else onnxruntime does not see the pattern.
            self._node("DequantizeLinear", codes, factors[-1], axis=1)
        bias = list(node.input[2:])
        then = result if not bias else f"{result}.unbiased"
        self._node("MatMul", factors, f"{result}.product", name=node.name)
        if rows is not None:
            self._node("Mul", [f"{result}.product", rows], then)
        else:
            same = self._constant(f"same.{product.rank}", np.zeros(product.rank, np.int64))
            self._node("Reshape", [f"{result}.product", same], then)
        if bias:
            self._node("Add", [then, *bias], result)

    def _activation(self, name: str) -> list[str]:
        """X as uint8, from the range seen, widened to hold 0, which stays exact. Codes, step, zero."""
        found = [f"{name}.codes", f"{name}.step", f"{name}.zero"]
        if found[1] not in self.constants:  # else another product reads it too
            low, high = min(self.ranges[name][0], 0.0), max(self.ranges[name][1], 0.0)
            step = np.float32((high - low) / 255) or np.float32(1)
            self._constant(found[1], np.asarray(step))
            self._constant(found[2], np.asarray(np.clip(np.rint(-low / step), 0, 255), np.uint8))
            self._node("QuantizeLinear", [name, *found[1:]], found[0])
        return found

    def _first_weight(self, name: str) -> list[str]:
        """W = r · W' with W' in [-1, 1]. Codes, step and zero of W', and r."""
        matrix = weight(self.weights[name], self.folder)
        rows = _largest(matrix, axis=1)
        return [
            self._constant(f"{name}.codes", (np.rint(matrix / rows * 127) + 128).astype(np.uint8)),
            self._constant(f"{name}.step", np.asarray(1 / 127, np.float32)),
            self._constant(f"{name}.zero", np.asarray(128, np.uint8)),
            self._constant(f"{name}.rows", rows),
        ]

    def _second_weight(self, name: str, transposed: bool) -> list[str]:
        """Codes, one step a column, and their zeros."""
        matrix = weight(self.weights[name], self.folder)
        matrix = np.ascontiguousarray(matrix.T) if transposed else matrix
        columns = _largest(matrix, axis=0)
        kind = "transposed" if transposed else "second"
        return [
            self._constant(f"{name}.{kind}.codes", np.rint(matrix / columns * 127).astype(np.int8)),
            self._constant(f"{name}.{kind}.step", (columns[0] / 127).astype(np.float32)),
            self._constant(f"{name}.{kind}.zero", np.zeros(columns.size, np.int8)),
        ]

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(values, name)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name or f"{output}.made", **attributes))


def _largest(matrix: Matrix, axis: int) -> Matrix:
    """Largest |value| along an axis, which is kept; 1 where all are 0."""
    largest: Matrix = np.abs(matrix).max(axis=axis, keepdims=True, initial=0.0)
    largest[largest == 0] = 1.0
    return largest
