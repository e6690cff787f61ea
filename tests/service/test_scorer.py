"""Sessions: explicit threads, no silent fallback."""

from pathlib import Path

import onnxruntime as ort
import pytest

from service.errors import ProviderError
from service.scorer import Graph, make_session
from tests.service.world import make_world


@pytest.fixture
def graph(folder: Path) -> Path:
    return folder / "finerank.onnx"


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_as_set(graph: Path, threads: int) -> None:
    options = make_session(graph, "cpu", threads).get_session_options()
    assert options.intra_op_num_threads == threads
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_there_names_those_that_are(graph: Path, provider: str) -> None:
    if {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[
        provider
    ] in ort.get_available_providers():
        pytest.skip("the provider is there")
    with pytest.raises(ProviderError, match=rf"{provider}.*available: .*CPUExecutionProvider"):
        make_session(graph, provider, 1)


def test_a_missing_input_is_named(tmp_path: Path) -> None:
    from bundle.folder import open_bundle

    bundle = open_bundle(make_world(tmp_path))
    graph = Graph(bundle.folder, bundle.manifest.stages.prerank.query, "cpu", 1)
    with pytest.raises(KeyError, match="context"):
        graph.run({"user": bundle.ads.fields[0]})
