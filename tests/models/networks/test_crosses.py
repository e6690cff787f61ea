"""Crosses: rows within their range, without a collision where there is room, even where there is not; and their sum."""

from itertools import product

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.data.batches import Batch
from models.networks.crosses import Crosses
from tests.models.world import ADS, SCHEMA, TABS, TAGS, USERS, random_batch

PAIRS = (
    ("context.tab", "ad.tags"),
    ("clicks.tags", "ad.tags"),
    ("ad.ad", "ad.price"),
    ("user.city", "clicks.ad"),
    ("user.city", "context.tab"),
)
SIZES = {"city": USERS, "tab": TABS, "ad": ADS, "tags": TAGS, "price": 4}


def values(batch: Batch, name: str, candidate: int) -> list[int]:
    """The ids of a field of a candidate that are there."""
    request = int(batch.request[candidate])
    clicks = batch.histories["clicks"][request]
    found = {
        "user.city": batch.user[request, :1],
        "context.tab": batch.context[request, :1],
        "ad.ad": batch.ads[candidate, :1],
        "ad.tags": batch.ads[candidate, 1:4],
        "ad.price": batch.ads[candidate, 4:5],
        "clicks.ad": clicks[:, :1],
        "clicks.tags": clicks[:, 1:4],
    }[name]
    return [value for value in found.flatten().tolist() if value != 0]


def plain_row(one: int, other: int, sizes: tuple[int, int], rows: int) -> int:
    """The module's formula in Python's integers, which have no bound."""
    pair = one * sizes[1] + other
    if sizes[0] * sizes[1] <= rows:
        return pair
    return pair % (2**31 - 1) * 48271 % (2**31 - 1) % rows


@pytest.mark.parametrize("rows", [7, 60, 10_000])
def test_equals_a_loop_over_pairs_of_values(rows: int) -> None:
    crosses, batch = Crosses(SCHEMA, PAIRS, rows), random_batch(4, 3, 6)
    torch.nn.init.normal_(crosses.weight)
    with torch.no_grad():
        found = crosses(batch)
        for m in range(12):
            total, start = 0.0, 0
            for one, other in PAIRS:
                sizes = (SIZES[one.partition(".")[2]], SIZES[other.partition(".")[2]])
                both = list(product(values(batch, one, m), values(batch, other, m)))
                weights = [float(crosses.weight[start + plain_row(a, b, sizes, rows)]) for a, b in both]
                total += sum(weights) / max(1, len(weights))
                start += min(rows, sizes[0] * sizes[1])
            assert float(found[m]) == pytest.approx(total, abs=1e-5)
        assert start == len(crosses.weight)


def test_a_cross_of_two_values_by_hand() -> None:
    """tab 3 of 5 and city 7 of 20: pair 67 of 100; with 60 rows 67 · 48271 mod 60 = 3,234,157 mod 60 = 37."""
    one, other = torch.tensor([[3]]), torch.tensor([[7]])
    pair = (("context.tab", "user.city"),)
    assert Crosses(SCHEMA, pair, 100).ids(0, one, other).tolist() == [[[67]]]
    assert Crosses(SCHEMA, pair, 60).ids(0, one, other).tolist() == [[[37]]]


def test_with_room_for_all_no_pairs_share_a_row_and_crosses_share_none() -> None:
    crosses = Crosses(SCHEMA, (("context.tab", "ad.tags"), ("user.city", "context.tab")), 10_000)
    seen: set[int] = set()
    for index, (one, other) in enumerate(((TABS, TAGS), (USERS, TABS))):
        rows = crosses.ids(index, torch.arange(one).unsqueeze(0), torch.arange(other).unsqueeze(0)).flatten().tolist()
        assert len(set(rows)) == one * other
        assert seen.isdisjoint(rows)
        seen |= set(rows)
    assert seen == set(range(len(crosses.weight)))


@pytest.mark.parametrize("rows", [97, 128, 1000])
def test_hashed_rows_stay_within_range_and_are_even(rows: int) -> None:
    crosses = Crosses(SCHEMA, (("ad.tags", "context.tab"), ("ad.ad", "user.city")), rows)
    found = crosses.ids(1, torch.arange(ADS).unsqueeze(0), torch.arange(USERS).unsqueeze(0)).numpy().ravel()
    assert found.min() >= crosses.rows[0]
    assert found.max() < len(crosses.weight)
    held = np.bincount(found - crosses.rows[0], minlength=crosses.rows[1])
    assert held.max() <= 3 * (1 + ADS * USERS / crosses.rows[1])


def test_values_that_are_not_there_have_no_part() -> None:
    crosses, batch = Crosses(SCHEMA, (("clicks.tags", "ad.tags"),), 60), random_batch(2, 3, 4)
    torch.nn.init.normal_(crosses.weight)
    with torch.no_grad():
        found = crosses(batch)
    assert found[:3].abs().max() == 0, "the first request has no history"
    assert found[3:].abs().min() > 0


@pytest.mark.parametrize(
    "name", ["ad.colour", "ad.length", "user.tab", "clicks.price", "views.ad", "tab", "", "ad.ad.ad"]
)
def test_a_field_that_is_not_there_is_named_with_what_is(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"no field '{name}' with ids; .* one of user, context, ad, clicks"):
        Crosses(SCHEMA, (("ad.ad", name),), 60)
