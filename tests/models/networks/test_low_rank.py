"""Layers of low rank: their formula, which part of a network they may replace, and what is refused."""

import pytest
import torch
from torch import nn

from models.config import ConfigError
from models.networks.config import DeepFmConfig, DinConfig, LowRankConfig
from models.networks.cost import cost_of
from models.networks.layers import Mlp
from models.networks.low_rank import LowRank, entry, linear_layers
from models.networks.registry import build
from tests.models.networks.small import SMALL, small
from tests.models.world import SCHEMA, random_batch

DIN = DinConfig(kind="din", embedding=4, attention_hidden=(6, 3), hidden=(8, 4))


def test_a_layer_of_low_rank_is_the_product_of_its_factors() -> None:
    layer, x = LowRank(6, 5, 2, None), torch.randn(7, 6)
    whole = nn.Linear(6, 5)
    with torch.no_grad():
        whole.weight.copy_(layer.outer.weight @ layer.inner.weight)
        whole.bias.copy_(layer.outer.bias)
    torch.testing.assert_close(layer(x), whole(x))
    assert layer.inner.bias is None


def test_between_the_factors_there_may_be_an_activation() -> None:
    layer, x = LowRank(6, 5, 2, "relu"), torch.randn(7, 6)
    thin = torch.relu(x @ layer.inner.weight.T + layer.inner.bias)
    torch.testing.assert_close(layer(x), thin @ layer.outer.weight.T + layer.outer.bias)


@pytest.mark.parametrize("between", [None, "dice", "prelu"])
def test_the_first_layers_work_for_a_request_is_done_once(between: str | None) -> None:
    mlp = Mlp(9, (8, 4), 1, "relu", 0.0)
    mlp.layers[0] = LowRank(9, 8, 3, between)
    once, each, request = torch.randn(3, 5), torch.randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 2])
    torch.testing.assert_close(mlp.grouped(once, each, request), mlp(torch.cat([once[request], each], dim=-1)))


def test_padding_is_no_part_of_the_statistics_between_the_factors() -> None:
    din = build(DIN.model_copy(update={"low_rank": {
        f"attention.history_clicks.{name}": LowRankConfig(rank=2, between="dice") for name in ("first", "second")
    }}), SCHEMA).train()  # fmt: skip
    batch = random_batch(6, 3, 8)
    clicks = batch.histories["clicks"]
    longer = {"clicks": torch.cat([clicks, torch.zeros(6, 5, clicks.shape[-1], dtype=torch.int64)], dim=1)}
    states = []
    for histories in (batch.histories, longer):
        before = {name: value.clone() for name, value in din.state_dict().items()}
        with torch.no_grad():
            din(type(batch)(**{f: getattr(batch, f) for f in batch.__dataclass_fields__} | {"histories": histories}))
        states.append({name: value.clone() for name, value in din.state_dict().items()})
        din.load_state_dict(before)
    moved = [name for name in states[0] if "between" in name and name.endswith(("mean", "variance"))]
    assert len(moved) == 4
    for name in moved:
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=1e-6)


def test_a_pair_of_candidate_and_behaviour_costs_the_rank_times_both_sides() -> None:
    """D = 8 values of q ⊙ k, 6 units, 50 behaviours: r(8 + 6) instead of 8 · 6 each, r · 8 instead of 6 · 8 for q."""
    thin = DIN.model_copy(update={"low_rank": {"attention.history_clicks.first": LowRankConfig(rank=2)}})
    one, two = cost_of(build(DIN, SCHEMA)), cost_of(build(thin, SCHEMA))
    assert one.candidate - two.candidate == 50 * (8 * 6 - 2 * (8 + 6)) + 8 * (6 - 2)
    assert one.request - two.request == 50 * 8 * (6 - 2)


def test_without_the_option_nothing_is_different() -> None:
    torch.manual_seed(4)
    plain = build(DIN, SCHEMA)
    torch.manual_seed(4)
    thin = build(DIN.model_copy(update={"low_rank": {"mlp.layers.1": LowRankConfig(rank=1)}}), SCHEMA)
    assert not any(isinstance(each, LowRank) for each in plain.modules())
    same = thin.state_dict()
    different = [name for name, value in plain.state_dict().items() if name not in same or not value.equal(same[name])]
    assert different == ["mlp.layers.1.weight", "mlp.layers.1.bias"]


@pytest.mark.parametrize("name", [name for name in SMALL if name.endswith("low-rank")])
def test_factors_are_trained_and_are_no_linear_layers_of_their_own(name: str) -> None:
    network, config = small(name).train(), SMALL[name]
    torch.autograd.backward(network.loss(random_batch(8, 4, 6)))
    low_rank = dict(config)["low_rank"]
    for path in low_rank:
        layer = network.get_submodule(path)
        assert isinstance(layer, LowRank)
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())
        assert entry(layer) is layer.inner
    assert not any(path.startswith(tuple(low_rank)) for path in linear_layers(network))


@pytest.mark.parametrize(
    ("path", "rank", "message"),
    [
        ("mlp.layers.5", 2, "there is no linear layer 'mlp.layers.5', known: mlp.layers.0, mlp.layers.1, mlp.out"),
        ("mlp", 2, "there is no linear layer 'mlp', known"),
        ("mlp.layers.1", 5, "'mlp.layers.1' has rank 5, a layer of 4 x 8 has 4 at most"),
    ],
)
def test_what_does_not_fit_is_refused(path: str, rank: int, message: str) -> None:
    config = DeepFmConfig(kind="deepfm", embedding=4, hidden=(8, 4), low_rank={path: LowRankConfig(rank=rank)})
    with pytest.raises(ConfigError, match=message):
        build(config, SCHEMA)
