"""A graph in fp16 is near the one in fp32, masks included; what fp16 cannot hold is named."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from export.din_graph import DinServing
from export.half import LARGEST, to_half
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from export.weights import open_graph
from models.networks.config import DinConfig
from models.networks.din import Din
from tests.export.graphs import constant, embedder, model, node, run, table
from tests.models.world import SCHEMA, random_ads, shake

ADS = 40
KINDS = (
    ("sum", "dice", "relu"),
    ("sum", "prelu", "sigmoid"),
    ("softmax", "sigmoid", "prelu"),
    ("softmax", "relu", "dice"),
)
"""Both ways of attention; each activation below and above it."""


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def exact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The fp32 graph of a network with this attention, activation in it and activation above it."""
    attention, inner, outer = request.param
    torch.manual_seed(0)
    config = DinConfig(
        kind="din",
        embedding=4,
        attention=attention,
        attention_hidden=(6, 3),
        attention_activation=inner,
        hidden=(8, 5),
        activation=outer,
    )
    network = Din(config, SCHEMA)
    shake(network)
    path = tmp_path_factory.mktemp("graphs") / "din.onnx"
    export_graph(DinServing(network.eval()), common_inputs(SCHEMA) | candidate_inputs(SCHEMA), ["logits"], path)
    return open_graph(path)


def feeds_for(length: int) -> dict[str, Any]:
    """`length` behaviours and as many rows of padding, at least one row."""
    random = np.random.default_rng(length)
    columns = SCHEMA.history_columns(SCHEMA.histories[0])
    history = np.zeros((max(2 * length, 1), len(columns)), np.int64)
    history[:length] = random_ads(length, random)[:, columns]
    return {
        "user": np.array([3]),
        "user_numbers": np.array([0.5], np.float32),
        "context": np.array([2]),
        "history_clicks": history,
        "ads": random_ads(ADS, random),
        "ad_numbers": random.normal(size=(ADS, 1)).astype(np.float32),
    }


def test_every_attention_and_activation(exact: onnx.ModelProto) -> None:
    half = to_half(exact)
    assert not [each.name for each in half.graph.initializer if each.data_type == TensorProto.FLOAT]
    for length in (0, 1, 6):
        feeds = feeds_for(length)
        (one,), (two,) = run(exact, feeds), run(half, feeds)
        assert two.dtype == np.float32
        assert np.isfinite(two).all()
        assert 0 < np.abs(one - two).max() <= 0.01 * max(1.0, float(np.abs(one).max()))


def test_padding_still_weighs_nothing(exact: onnx.ModelProto) -> None:
    half, feeds = to_half(exact), feeds_for(3)
    shorter = feeds | {"history_clicks": feeds["history_clicks"][:3]}
    np.testing.assert_allclose(run(half, feeds)[0], run(half, shorter)[0], atol=2e-3)


def test_inputs_and_outputs_stay_as_they_were(exact: onnx.ModelProto) -> None:
    half = to_half(exact)
    assert half.graph.input == exact.graph.input
    assert half.graph.output == exact.graph.output


def test_the_graph_given_is_left_alone() -> None:
    exact = embedder(table())
    to_half(exact)
    assert exact == embedder(table())


def masked(value: float) -> onnx.ModelProto:
    """Softmax over x [n] where it is positive."""
    return model(
        [
            node("Greater", ["x", "zero"], "present"),
            node("Where", ["present", "x", "never"], "kept"),
            node("Softmax", ["kept"], "weights", axis=0),
        ],
        [constant("zero", np.zeros(1, np.float32)), constant("never", np.full(1, value, np.float32))],
        {"x": (TensorProto.FLOAT, ["n"])},
        "weights",
        ["n"],
    )


def test_a_mask_still_masks() -> None:
    x = np.array([1.0, -1.0, 2.0, -500.0], np.float32)
    (found,) = run(to_half(masked(-1e30)), {"x": x})
    assert found[[1, 3]].tolist() == [0, 0]
    assert found.sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("value", [1e30, -1e20, 70_000.0, np.inf, np.nan])
def test_other_constants_beyond_fp16_are_named(value: float) -> None:
    with pytest.raises(ValueError, match=rf"constant 'never' holds .*, fp16 ends at {LARGEST:g}"):
        to_half(masked(value))
