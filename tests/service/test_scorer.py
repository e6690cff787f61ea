"""Sessions: explicit threads, no silent fallback; large weights are mapped from the file beside the graph."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundle.errors import ContractError
from bundle.manifest import GraphSpec, TensorSpec
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


ROWS = 50_000


@pytest.fixture
def outlined(tmp_path: Path) -> GraphSpec:
    """`graph.onnx`, whose table stands in `graph.weights`: ids [n] -> sums of its rows [n]."""
    table = numpy_helper.from_array(np.arange(ROWS * 8, dtype=np.float32).reshape(ROWS, 8) / ROWS, "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n"])],
        [table, numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, str(tmp_path / "inside.onnx"))
    onnx.save(model, str(tmp_path / "graph.onnx"), save_as_external_data=True, location="graph.weights")
    return GraphSpec(
        file="graph.onnx",
        inputs=(TensorSpec(name="ids", dtype="int64", shape=("n",)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("n",)),),
        weights="graph.weights",
    )


def test_weights_beside_the_graph_are_the_same_weights(outlined: GraphSpec, tmp_path: Path) -> None:
    ids = {"ids": np.array([0, 7, ROWS - 1])}
    inside = Graph(tmp_path, outlined.model_copy(update={"file": "inside.onnx", "weights": None}), "cpu", 1)
    found = Graph(tmp_path, outlined, "cpu", 1).run(ids)["logits"]
    np.testing.assert_array_equal(found, inside.run(ids)["logits"])
    assert found[1] > found[0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system does not tell what is mapped")
def test_weights_beside_the_graph_are_mapped_and_shared(outlined: GraphSpec, tmp_path: Path) -> None:
    """What is mapped from a file and never written to is one copy for all processes; weights inside are not."""
    graph = Graph(tmp_path, outlined, "cpu", 1)
    graph.run({"ids": np.arange(ROWS)})
    (mapped,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if "graph.weights" in line]
    begin, end = (int(each, 16) for each in mapped.split()[0].split("-"))
    assert end - begin >= ROWS * 8 * 4


def test_weights_that_are_not_there_are_named(outlined: GraphSpec, tmp_path: Path) -> None:
    (tmp_path / "graph.weights").unlink()
    with pytest.raises(ContractError, match=r"graph\.onnx: its weights 'graph\.weights' are not there"):
        Graph(tmp_path, outlined, "cpu", 1)
    with pytest.raises(ContractError, match=r"graph\.onnx: not a graph that runs here"):
        Graph(tmp_path, outlined.model_copy(update={"weights": None}), "cpu", 1)


def test_weights_that_are_cut_off_are_refused(outlined: GraphSpec, tmp_path: Path) -> None:
    whole = (tmp_path / "graph.weights").read_bytes()
    (tmp_path / "graph.weights").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ContractError, match=r"graph\.onnx: not a graph that runs here"):
        Graph(tmp_path, outlined, "cpu", 1)
