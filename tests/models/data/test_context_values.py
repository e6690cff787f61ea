"""Requests of one value of a context field are read alone, and in the same way as all."""

import numpy as np
import pytest
import torch

from models.data.batches import batches, count
from models.data.context_values import restricted
from models.data.spec import DataError
from tests.market import Market


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_values_together_are_everything(market: Market, split: str) -> None:
    whole = market.data
    scenes = [restricted(whole, "scene", name) for name in ("feed", "search", "detail")]
    assert sum(count(each, split) for each in scenes) == count(whole, split)
    for each in scenes:
        assert each.only is not None
        column, wanted = each.only
        found = list(batches(each, split, 200, seed=3))
        assert sum(len(batch.labels) for batch in found) == count(each, split) > 0
        assert all((batch.context[:, column] == wanted).all() for batch in found)
        mine = [b.rows[(b.context[b.request, column] == wanted).numpy()] for b in batches(whole, split, 200)]
        again = [batch.rows for batch in batches(each, split, 200)]
        np.testing.assert_array_equal(np.concatenate(again), np.concatenate(mine))


def test_shuffled_by_the_seed(market: Market) -> None:
    data = restricted(market.data, "scene", "feed")
    one, two, other = (torch.cat([b.labels for b in batches(data, "train", 99, seed)]) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("region", "south", "'region' is no categorical context field, known: scene"),
        ("scene", "shop", "scene has no value 'shop' in the training split, it has detail, feed, search"),
    ],
)
def test_what_is_not_there_is_named(market: Market, field: str, value: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        restricted(market.data, field, value)
    assert str(market.data.folder) in str(caught.value)
