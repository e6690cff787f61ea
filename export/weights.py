"""A graph on disk: `NAME.onnx`, and its large weights beside it in `NAME.weights`.

onnxruntime maps such a file into memory instead of reading it, so the worker processes of a service share one copy of
the embedding tables in the page cache. Weights inside the .onnx are copied by every process: four workers with a table
of 400 MB took 1,680 MB with it inside, 528 MB with it beside.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import external_data_helper, helper, numpy_helper

Model = onnx.ModelProto

MAPPED = 1 << 20
"""Bytes of a weight from which on it is kept beside the graph. What is below is read faster than mapped."""


def save_graph(model: Model, path: Path) -> str | None:
    """Write `path`, and the large weights to `<stem>.weights` beside it; that file's name, None when none is large.

    `model` must hold its weights; it refers to the file afterwards. What is left out: weights that no node reads, and
    the exporter's notes, which hold stack traces of the machine that exports.
    """
    read = {name for node in model.graph.node for name in node.input} | {value.name for value in model.graph.output}
    kept = [each for each in model.graph.initializer if each.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        del node.metadata_props[:]
    weights = path.with_suffix(".weights")
    weights.unlink(missing_ok=True)  # onnx appends
    if any(len(each.raw_data) >= MAPPED for each in kept):
        external_data_helper.convert_model_to_external_data(
            model, all_tensors_to_one_file=True, location=weights.name, size_threshold=MAPPED
        )
    onnx.save(model, str(path))
    if not weights.exists():
        return None
    weights.chmod(path.stat().st_mode)  # onnx lets nobody but the owner read it
    return weights.name


def save_outline(model: Model, path: Path) -> None:
    """Write a graph that refers to the large weights of another one in the same folder."""
    onnx.save(model, str(path))


def open_graph(path: Path) -> Model:
    """The graph with its weights in memory."""
    return onnx.load(str(path))


def outline(path: Path) -> Model:
    """The graph without its large weights, to which it refers: saved into the same folder it is whole."""
    return onnx.load(str(path), load_external_data=False)


def weight(tensor: onnx.TensorProto, folder: Path) -> npt.NDArray[np.float32]:
    """The values of a weight of a graph in `folder`, wherever they are."""
    values: npt.NDArray[np.float32] = numpy_helper.to_array(tensor, base_dir=str(folder))
    return values


def size(model: Model) -> int:
    """Bytes of the weights that nodes read, wherever they are kept."""
    read = {name for node in model.graph.node for name in node.input}
    used = (each for each in model.graph.initializer if each.name in read)
    return sum(math.prod(each.dims) * helper.tensor_dtype_to_np_dtype(each.data_type).itemsize for each in used)
