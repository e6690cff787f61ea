"""Every network, as it is served: the ONNX file computes what torch does."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from tests.export.test_din_graph import feeds, request
from tests.models.networks.small import SMALL, small
from tests.models.world import IMAGES, SCHEMA


@pytest.mark.parametrize("name", SMALL)
def test_the_onnx_file_computes_the_same(name: str, tmp_path: Path) -> None:
    network = small(name)
    inputs = common_inputs(SCHEMA) | candidate_inputs(SCHEMA)
    spec = export_graph(serving_graph(network), inputs, ["logits"], tmp_path / "finerank.onnx")
    assert [(each.name, each.shape) for each in spec.outputs] == [("logits", ("ads",))]
    session = ort.InferenceSession(str(tmp_path / "finerank.onnx"), providers=["CPUExecutionProvider"])
    for length, real, candidates in ((1, 1, 1), (1, 0, 2), (50, 50, 200), (9, 4, 33), (41, 41, 7)):
        batch = request(length, real, candidates, seed=length)
        (found,) = session.run(None, {name: value.numpy() for name, value in feeds(batch).items()})
        with torch.no_grad():
            np.testing.assert_allclose(found, network(batch).numpy(), rtol=0, atol=1e-5)


def test_a_served_dicm_holds_reduced_images_and_not_the_network_that_reduces(tmp_path: Path) -> None:
    network = small("dicm-image")
    inputs = common_inputs(SCHEMA) | candidate_inputs(SCHEMA)
    export_graph(serving_graph(network), inputs, ["logits"], tmp_path / "finerank.onnx")
    graph = onnx.load(str(tmp_path / "finerank.onnx")).graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    assert shapes["network.images.reduced"] == (IMAGES, 3)
    assert not [name for name in shapes if "reduction" in name]
