"""Multiply-adds against their formulas, from the shapes of the test world."""

import pytest
import torch

from bundle.schema import FeatureSchema
from models.networks.config import DinConfig, DqmConfig, GwenConfig
from models.networks.cost import Cost, cost_of, one_request
from models.networks.dice import Dice
from models.networks.linear import LinearNetwork
from models.networks.registry import build
from tests.models.networks.small import SMALL, small
from tests.models.world import SCHEMA

D = 4
USER, CONTEXT, AD = D + 1, D, 3 * D + 1
BEHAVIOUR, LENGTH = 2 * D, 50


def test_gwen() -> None:
    config = GwenConfig(kind="gwen", embedding=D, hidden=(8, 5))
    once = (USER + CONTEXT + BEHAVIOUR) * 8
    assert cost_of(build(config, SCHEMA)) == Cost(once, AD * 8 + 8 * 5 + 5)


@pytest.mark.parametrize("attention", ["sum", "softmax"])
def test_din(attention: str) -> None:
    config = DinConfig.model_validate(
        {"kind": "din", "embedding": D, "attention": attention, "attention_hidden": [6, 3], "hidden": [8, 5]}
    )
    each = BEHAVIOUR * 6 + 6 * 3 + 3 + BEHAVIOUR  # q ⊙ k, the second layer, the weight, the interest
    candidate = LENGTH * each + BEHAVIOUR * 6 + (AD + BEHAVIOUR) * 8 + 8 * 5 + 5
    request = LENGTH * BEHAVIOUR * 6 + (USER + CONTEXT) * 8
    assert cost_of(build(config, SCHEMA)) == Cost(request, candidate)


def test_two_towers_cost_an_inner_product_a_candidate() -> None:
    config = DqmConfig(kind="dqm", embedding=D, dimension=5, hidden=(9,))
    assert cost_of(build(config, SCHEMA)) == Cost((USER + BEHAVIOUR) * 9 + 9 * 5 + CONTEXT * 6, 6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mtl", AD * 8 + 8 * 4 + 4),
        ("mtl-shared", AD * 8 + 8 * 4 + 4),
        ("cold", (AD + BEHAVIOUR) * (5 + 8) + 8 * 4 + 4),  # gates and network over the ad and its cross
    ],
)
def test_a_candidate_of(name: str, expected: int) -> None:
    assert cost_of(small(name)).candidate == expected


@pytest.mark.parametrize("name", SMALL)
def test_counting_changes_nothing(name: str) -> None:
    network = small(name).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = cost_of(network)
    assert (found.candidate > 0) is not isinstance(network, LinearNetwork), "sums of weights are no matrix products"
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert any(isinstance(module, Dice) for module in small("din").modules()), "which would take statistics in training"


def test_a_longer_history_costs_more() -> None:
    config = SMALL["din"]
    longer = SCHEMA.histories[0].model_copy(update={"max_length": 2 * LENGTH})
    schema: FeatureSchema = SCHEMA.model_copy(update={"histories": (longer,)})
    one, two = cost_of(build(config, SCHEMA)), cost_of(build(config, schema))
    assert two.candidate - one.candidate == LENGTH * (BEHAVIOUR * 6 + 6 * 3 + 3 + BEHAVIOUR)


def test_the_request_that_is_counted_has_full_histories() -> None:
    batch = one_request(SCHEMA, 3)
    assert batch.histories["clicks"].shape == (1, LENGTH, 5)
    assert (batch.histories["clicks"] > 0).all()
    assert batch.ads.shape == (3, 6)
