"""A serving module -> an ONNX file, and its interface for the manifest."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from bundle.golden import Common
from bundle.manifest import GraphSpec, TensorSpec
from bundle.schema import FeatureSchema
from export.weights import outline, save_graph

OPSET = 18
TYPES: dict[int, str] = {onnx.TensorProto.INT64: "int64", onnx.TensorProto.FLOAT: "float32"}
Axes = tuple[str | int, ...]

SAMPLE = 67
"""Length of the varying axes in the traced example. 1 would be taken as fixed, and so would lengths derived from it:
the attention cuts histories into up to 25 blocks (export/column_attention.py), of which 67 is no multiple."""


def common_inputs(schema: FeatureSchema) -> dict[str, Axes]:
    """Names and axes of a request's common inputs; a side without ids, or without numbers, has no such input."""
    inputs: dict[str, Axes] = {}
    for name, side in (("user", schema.user), ("context", schema.context)):
        if side.id_columns:
            inputs[name] = (side.id_columns,)
        if side.number_columns:
            inputs[f"{name}_numbers"] = (side.number_columns,)
    for history in schema.histories:
        inputs[f"history_{history.name}"] = (f"length_{history.name}", len(schema.history_columns(history)))
    return inputs


def candidate_inputs(schema: FeatureSchema) -> dict[str, Axes]:
    """Names and axes of the candidates' inputs."""
    inputs: dict[str, Axes] = {"ads": ("ads", schema.ad.id_columns)}
    if schema.ad.number_columns:
        inputs["ad_numbers"] = ("ads", schema.ad.number_columns)
    return inputs


def tensors(common: Common, names: list[str]) -> dict[str, Tensor]:
    """The named common inputs as tensors."""
    feeds = common.feeds()
    return {name: torch.from_numpy(feeds[name]) for name in names if name in feeds}


def export_graph(
    module: nn.Module, inputs: dict[str, tuple[str | int, ...]], outputs: list[str], path: Path
) -> GraphSpec:
    """Write `module(feeds)` as ONNX, large weights in a file beside it. Strings among the axes vary from call to call.

    The interface is read back from the written file, and must be the one asked for (ValueError otherwise).
    """
    example = {
        name: torch.zeros([SAMPLE if isinstance(axis, str) else axis for axis in axes], dtype=_dtype(name))
        for name, axes in inputs.items()
    }
    axes_by_name = {
        axis: torch.export.Dim(axis, min=1) for axes in inputs.values() for axis in axes if isinstance(axis, str)
    }
    shapes = {
        name: {i: axes_by_name[axis] for i, axis in enumerate(axes) if isinstance(axis, str)}
        for name, axes in inputs.items()
    }
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), uncollected():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; what matters is proved by parity
        program = torch.onnx.export(
            module.eval(),
            (),
            kwargs={"feeds": example},
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes={"feeds": shapes},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        weights = save_graph(program.model_proto, path)
    graph = outline(path).graph
    spec = GraphSpec(
        file=path.name,
        inputs=tuple(_spec(value) for value in graph.input),
        outputs=tuple(_spec(value) for value in graph.output),
        weights=weights,
    )
    found = {each.name: each.shape for each in spec.inputs}
    if found != inputs:
        raise ValueError(f"{path.name}: the graph's inputs are {found}, asked for were {inputs}")
    return spec


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection within: the exporter keeps nearly all of the objects it makes, and they would be looked
    through again and again. Of the 15.2 s of one processor that `adrank export` of a small DIN took, 1.9 s were 1,694
    collections; together with what `adrank.load` leaves out, 0.9 s in 215."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _dtype(name: str) -> torch.dtype:
    return torch.float32 if name in ("user_numbers", "context_numbers", "ad_numbers") else torch.int64


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return TensorSpec.model_validate({"name": value.name, "dtype": TYPES[int(tensor.elem_type)], "shape": shape})
