"""The linear part and LR against a plain sum over features, one at a time."""

import torch
from torch import Tensor

from models.data.batches import Batch
from models.networks.linear import LinearPart
from models.networks.lr import Lr
from models.networks.network import Sides
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch, shake


def plain(sides: Sides, part: LinearPart, batch: Batch, m: int) -> Tensor:
    """The `out` functions of candidate m."""
    arena, r = sides.arena, int(batch.request[m])

    def weight(place: str, field: int, value: Tensor) -> Tensor:
        """Of one id of an ad-side field in a place."""
        if value == 0:
            return torch.zeros(part.out)
        return arena.weight[arena.starts[arena.table(place, SCHEMA.ad.id_fields[field])] + value]

    def behaviour(place: str, ids: Tensor) -> Tensor:
        """Of the first four columns of an ad: its id and its tags, which are averaged."""
        tags = [weight(place, 1, tag) for tag in ids[1:4] if tag]
        return weight(place, 0, ids[0]) + (torch.stack(tags).mean(0) if tags else 0)

    city, tab, ad = batch.user[r, 0], batch.context[r, 0], batch.ads[m]
    total = part.intercept + arena.weight[arena.starts["user.city"] + city]
    total = total + arena.weight[arena.starts["context.tab"] + tab]
    total = total + behaviour("ad", ad) + weight("ad", 2, ad[4])
    past = [behaviour("history_clicks", each) for each in batch.histories["clicks"][r] if each[0]]
    if past:
        total = total + torch.stack(past).mean(0)
    return total + batch.user_numbers[r, 0] * part.request_numbers[0] + batch.ad_numbers[m, 0] * part.ad_numbers[0]


def test_several_functions_are_the_sum_over_the_features() -> None:
    torch.manual_seed(0)
    sides, part, batch = Sides(SCHEMA, 3, 0.0, shared=False), LinearPart(SCHEMA, 3), random_batch(4, 3, 6)
    assert sides.arena.weight.abs().sum() == part(sides, batch).abs().sum() == 0, "it starts at zero"
    shake(sides)
    shake(part)
    with torch.no_grad():
        sides.arena.weight[0].zero_()
        expected = torch.stack([plain(sides, part, batch, m) for m in range(12)])
        torch.testing.assert_close(part(sides, batch), expected)


def test_lr_is_that_sum_and_the_bias_of_the_position() -> None:
    lr, batch = small("lr"), random_batch(4, 3, 6)
    assert isinstance(lr, Lr)
    assert lr.position is not None
    with torch.no_grad():
        expected = torch.cat([plain(lr, lr.linear, batch, m) for m in range(12)])
        torch.testing.assert_close(lr(batch), expected + lr.position.weight[batch.positions, 0])


def test_a_value_weighs_differently_as_a_candidate_and_among_behaviours() -> None:
    arena = Sides(SCHEMA, 2, 0.1, shared=False).arena
    tables = {"user.city", "context.tab", "ad.ad", "ad.tags", "ad.price", "history_clicks.ad", "history_clicks.tags"}
    assert set(arena.starts) == tables
    assert len(arena.weight) == 1 + 19 + 4 + 49 + 8 + 3 + 49 + 8
