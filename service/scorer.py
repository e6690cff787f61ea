"""The one door to onnxruntime: sessions with explicit threads and provider, checked against the manifest."""

import bundle.no_telemetry  # noqa: F401

# isort: split
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime as ort

from bundle.errors import ContractError
from bundle.manifest import GraphSpec, TensorSpec
from service.errors import ProviderError

PROVIDERS = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}
"""Order of preference. The CPU stays last for the few operators a device lacks; the device itself must be there."""

DTYPES = {"int64": "tensor(int64)", "float32": "tensor(float)"}


def make_session(path: Path, provider: str, threads: int) -> ort.InferenceSession:
    """A session for the graph in `path`.

    One thread pool of `threads`, no spinning: waiting threads of several sessions otherwise take the cores from each
    other. ProviderError when the provider is not there or did not load, ContractError when the file is no graph.
    """
    wanted = PROVIDERS[provider]
    available = ort.get_available_providers()
    if wanted[0] not in available:
        raise ProviderError(
            f"provider {provider!r} needs {wanted[0]}, which is not here; available: {', '.join(available)}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(str(path), options, providers=[p for p in wanted if p in available])
    except Exception as error:  # onnxruntime has no common error class
        raise ContractError(f"{path}: not a graph that runs here: {str(error)[:300]}") from error
    session.disable_fallback()
    if wanted[0] not in session.get_providers():
        raise ProviderError(
            f"{wanted[0]} was asked for, {path.name} runs on {', '.join(session.get_providers())} instead"
        )
    return session


class Graph:
    """One ONNX graph whose inputs and outputs are those the manifest states. Safe to run from several threads.

    Large weights in a file beside the graph are mapped by onnxruntime, not read: all processes share one copy of them.
    """

    def __init__(self, folder: Path, spec: GraphSpec, provider: str, threads: int) -> None:
        self.spec = spec
        if spec.weights is not None and not (folder / spec.weights).is_file():
            raise ContractError(f"{folder / spec.file}: its weights {spec.weights!r} are not there")
        self._session = make_session(folder / spec.file, provider, threads)
        _check(f"{folder / spec.file}: inputs", self._session.get_inputs(), spec.inputs)
        _check(f"{folder / spec.file}: outputs", self._session.get_outputs(), spec.outputs)
        self.inputs = tuple(each.name for each in spec.inputs)
        self._outputs = [each.name for each in spec.outputs]

    def run(self, values: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name. Takes from `values` what the graph reads; KeyError names an input that is not there."""
        found = self._session.run(self._outputs, {name: values[name] for name in self.inputs})
        return dict(zip(self._outputs, found, strict=True))


def _check(what: str, found: list[Any], stated: tuple[TensorSpec, ...]) -> None:
    """ContractError unless names, dtypes and axes are as stated. Names of axes that vary do not matter."""
    if strange := {each.name for each in found} ^ {each.name for each in stated}:
        raise ContractError(
            f"{what} are {[each.name for each in found]}, the manifest states {[each.name for each in stated]}; "
            f"in one only: {sorted(strange)}"
        )
    by_name = {each.name: each for each in found}
    for tensor in stated:
        graph = by_name[tensor.name]
        if graph.type != DTYPES[tensor.dtype]:
            raise ContractError(f"{what}: {tensor.name!r} is {graph.type}, the manifest states {tensor.dtype}")
        axes = [axis if isinstance(axis, int) else None for axis in graph.shape]
        expected = [axis if isinstance(axis, int) else None for axis in tensor.shape]
        if axes != expected:
            raise ContractError(
                f"{what}: {tensor.name!r} has axes {graph.shape}, the manifest states {list(tensor.shape)}"
            )


def runtime() -> dict[str, str]:
    """What besides graph and inputs may change the last bits of a score."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {"onnxruntime": ort.__version__, "processor": next(named, platform.machine())}
