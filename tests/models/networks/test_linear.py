"""Linear networks against a plain sum over features, one at a time."""

from dataclasses import replace

import torch
from torch import Tensor

from models.data.batches import Batch
from models.networks.config import LrConfig, MlrConfig
from models.networks.layers import spread
from models.networks.linear import LinearNetwork
from models.networks.lr import Lr
from models.networks.network import Sides
from models.networks.registry import build
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch, shake


def plain(network: LinearNetwork, batch: Batch, m: int) -> Tensor:
    """The functions of candidate m."""
    arena, r = network.arena, int(batch.request[m])

    def weight(place: str, field: int, value: Tensor) -> Tensor:
        """Of one id of an ad-side field in a place."""
        if value == 0:
            return torch.zeros(arena.dimension)
        return arena.weight[arena.starts[arena.table(place, SCHEMA.ad.id_fields[field])] + value]

    def behaviour(place: str, ids: Tensor) -> Tensor:
        """Of the first four columns of an ad: its id and its tags, which are averaged."""
        tags = [weight(place, 1, tag) for tag in ids[1:4] if tag]
        return weight(place, 0, ids[0]) + (torch.stack(tags).mean(0) if tags else 0)

    city, tab, ad = batch.user[r, 0], batch.context[r, 0], batch.ads[m]
    total = network.intercept + arena.weight[arena.starts["user.city"] + city]
    total = total + arena.weight[arena.starts["context.tab"] + tab]
    total = total + behaviour("ad", ad) + weight("ad", 2, ad[4])
    past = [behaviour("history_clicks", each) for each in batch.histories["clicks"][r] if each[0]]
    if past:
        total = total + torch.stack(past).mean(0)
    of_numbers = network.vectors.numbers
    total = total + batch.user_numbers[r, 0] * of_numbers["user"][0]
    total = total + batch.ad_numbers[m, 0] * of_numbers["ad"][0]
    assert isinstance(total, Tensor)
    return total


def test_several_functions_are_the_sum_over_the_features() -> None:
    torch.manual_seed(0)
    network, batch = build(MlrConfig(kind="mlr", pieces=2), SCHEMA), random_batch(4, 3, 6)
    assert isinstance(network, LinearNetwork)
    shake(network)
    with torch.no_grad():
        once, each = network.sums(batch)
        expected = torch.stack([plain(network, batch, m) for m in range(12)])
        torch.testing.assert_close(spread(once, batch.request) + each + network.intercept, expected)


def test_lr_starts_at_zero() -> None:
    network = build(LrConfig(kind="lr", cascade=True), SCHEMA)
    assert all(parameter.abs().max() == 0 for parameter in network.parameters())
    assert network(random_batch(4, 3, 6)).abs().max() == 0


def test_lr_is_that_sum_and_the_bias_of_the_position() -> None:
    lr, batch = small("lr"), random_batch(4, 3, 6)
    assert isinstance(lr, Lr)
    assert lr.position is not None
    with torch.no_grad():
        expected = torch.cat([plain(lr, batch, m) for m in range(12)])
        torch.testing.assert_close(lr(batch), expected + lr.position.weight[batch.positions, 0])


def test_without_histories_behaviours_weigh_nothing() -> None:
    lr, batch = small("lr-no-history"), random_batch(4, 3, 6)
    none = replace(batch, histories={name: torch.zeros_like(ids) for name, ids in batch.histories.items()})
    assert set(lr.arena.starts) == {"user.city", "context.tab", "ad.ad", "ad.tags", "ad.price"}
    assert isinstance(lr, Lr)
    with torch.no_grad():
        assert torch.equal(lr(batch), lr(none))
        whole = small("lr")
        assert not torch.equal(whole(batch), whole(none))


def test_a_value_weighs_differently_as_a_candidate_and_among_behaviours() -> None:
    arena = Sides(SCHEMA, 2, 0.1, shared=False).arena
    tables = {"user.city", "context.tab", "ad.ad", "ad.tags", "ad.price", "history_clicks.ad", "history_clicks.tags"}
    assert set(arena.starts) == tables
    assert len(arena.weight) == 1 + 19 + 4 + 49 + 8 + 3 + 49 + 8
