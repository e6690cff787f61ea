"""Batches hold what the Parquet parts hold: every request once, whole, padded, in an order that a seed fixes."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from bundle.schema import FeatureSchema
from models.data.batches import Batch, batches, count
from models.data.prepare import prepare
from models.data.prepared import PreparedData
from models.data.spec import DataError, DatasetSpec
from tests.market import Market

Plain = dict[str, Any]


def stored(data: PreparedData, split: str) -> list[Plain]:
    """The requests of a split as the Parquet parts hold them, in order."""
    return [row for part in data.parts(split) for row in pl.read_parquet(part).to_dicts()]


def held(batch: Batch, schema: FeatureSchema) -> list[Plain]:
    """The requests of a batch in the same form; padding cut off, histories as the ids they show."""
    found = []
    for b in range(len(batch.user)):
        mine = (batch.request == b).numpy()
        request: Plain = {
            "user": int(batch.users[mine][0]),
            "user_ids": batch.user[b].tolist(),
            "context_ids": batch.context[b].tolist(),
            "ads": batch.rows[mine].tolist(),
            "labels": batch.labels.numpy()[mine].astype(int).tolist(),
            "positions": batch.positions.numpy()[mine].tolist(),
            "truth": batch.truth[mine].tolist() if batch.truth is not None else None,
        }
        for history in schema.histories:
            ids = batch.histories[history.name][b]
            length = int((ids[:, 0] != 0).sum())
            assert ids[length:].abs().sum() == 0, "padding stands at the end"
            request[f"history_{history.name}"] = ids[:length].tolist()
        found.append(request)
    return found


def shown(data: PreparedData, row: Plain) -> Plain:
    """A stored request with its histories looked up, as a batch shows it."""
    expected = {name: row[name] for name in ("user", "user_ids", "context_ids", "ads", "labels", "positions", "truth")}
    for history in data.schema.histories:
        columns, listed = data.schema.history_columns(history), row[f"history_{history.name}"]
        if history.of_ads:
            behaviours = [[int(data.ads.fields[ad, c]) for c in columns] for ad in listed]
        else:
            behaviours = [listed[i : i + len(columns)] for i in range(0, len(listed), len(columns))]
        expected[f"history_{history.name}"] = behaviours
    return expected


def key(request: Plain) -> str:
    return repr(sorted(request.items()))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_every_request_once_with_its_content(market: Market, split: str, seed: int | None, size: int) -> None:
    data = market.data
    found = [request for batch in batches(data, split, size, seed) for request in held(batch, data.schema)]
    expected = [shown(data, row) for row in stored(data, split)]
    if seed is None:
        assert found == expected, "without a seed the order is that of the files"
    else:
        assert Counter(map(key, found)) == Counter(map(key, expected))
    assert sum(len(request["ads"]) for request in found) == count(data, split)


def test_several_parts_are_read(market: Market) -> None:
    assert len(market.data.parts("train")) > 1


def test_ads_and_numbers_are_those_of_the_catalogue(market: Market) -> None:
    ads = market.data.ads
    for batch in batches(market.data, "valid", 128, 1):
        np.testing.assert_array_equal(batch.ads.numpy(), ads.fields[batch.rows])
        np.testing.assert_array_equal(batch.ad_numbers.numpy(), ads.numbers[batch.rows])
        assert (batch.ads.dtype, batch.ad_numbers.dtype) == (torch.int64, torch.float32)


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("size", [1, 25, 64, 1000])
def test_batches_have_about_the_size_and_requests_stay_whole(market: Market, size: int, seed: int | None) -> None:
    longest = max(len(row["ads"]) for row in stored(market.data, "train"))
    full = 0
    for batch in batches(market.data, "train", size, seed):
        assert len(batch.labels) < size + longest
        assert torch.unique(batch.request).tolist() == list(range(len(batch.user)))
        full += len(batch.labels) > size - longest
    enough = count(market.data, "train") // max(size, longest) - len(market.data.parts("train"))
    assert full >= enough, "only the last batch of a part is short"


def order(data: PreparedData, seed: int | None) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches(data, "train", 256, seed)]


def test_a_seed_fixes_the_order(market: Market) -> None:
    assert order(market.data, 1) == order(market.data, 1)
    assert order(market.data, 1) != order(market.data, 2)
    assert order(market.data, 1) != order(market.data, None)


def test_parts_are_shuffled_too(market: Market) -> None:
    sizes = [len(pl.read_parquet(part)) for part in market.data.parts("train")]
    firsts = {sum(len(b.user) for b in batches(market.data, "train", 100_000, seed)) for seed in range(3)}
    assert firsts == {sum(sizes)}
    begun = {len(next(batches(market.data, "train", 100_000, seed)).user) for seed in range(12)}
    assert begun == set(sizes), "every part comes first under some seed"


def test_an_unknown_split_is_refused(market: Market) -> None:
    with pytest.raises(DataError, match="there is no split 'tset', known: train, valid, test"):
        next(batches(market.data, "tset", 10))


def test_behaviours_that_carry_values_and_users_without_any(tmp_path: Path) -> None:
    """Two histories, one of raw values; no positions, no truth, no context, and one impression a request."""
    n = 60
    pl.DataFrame(
        {
            "user": [i % 6 for i in range(n)],
            "ad": [10 + i % 4 for i in range(n)],
            "time": list(range(100, 100 + n)),
            "click": [int(i % 3 == 0) for i in range(n)],
        }
    ).write_parquet(tmp_path / "log.parquet")
    pl.DataFrame({"ad": [10, 11, 12, 13], "brand": ["a", "b", "a", "c"], "kind": [1, 2, 2, 3]}).write_parquet(
        tmp_path / "ads.parquet"
    )
    pl.DataFrame(
        {"user": [0, 0, 1, 0], "time": [90, 105, 95, 120], "brand": ["b", "a", "c", "z"], "kind": [2, 1, 3, 9]}
    ).write_parquet(tmp_path / "did.parquet")
    spec = DatasetSpec.model_validate(
        {
            "name": "bare",
            "source": "table",
            "files": {"log": "log.parquet", "ads": "ads.parquet", "behaviours": "did.parquet"},
            "label": "click",
            "user": "user",
            "ad": "ad",
            "time": "time",
            "ad_features": [{"column": "ad"}, {"column": "brand"}, {"column": "kind"}],
            "histories": [
                {"name": "did", "source": "behaviours", "fields": ["brand", "kind"], "of_ads": False}
                | {"events": ["impression"]},
                {"name": "clicks", "source": "log", "fields": ["ad"], "max_length": 2},
            ],
            "split": {"valid_from": 140, "test_from": 150},
        }
    )
    data = prepare(spec, tmp_path, tmp_path / "out", progress=False)
    rows = stored(data, "train")
    found = [request for batch in batches(data, "train", 7) for request in held(batch, data.schema)]
    for request, row in zip(found, rows, strict=True):
        bare = {"user_ids": [], "context_ids": [], "positions": [0], "truth": None}
        assert request == shown(data, row | bare)
    lengths = Counter(len(request["history_did"]) for request in found)
    assert set(lengths) == {0, 1, 2, 3}, "users without a behaviour, and one whose behaviours grow"
    for batch in batches(data, "train", 1):
        assert batch.histories["did"].shape[1] >= 1, "an empty history is one row of padding"
        assert batch.context.shape == (1, 0)
        assert batch.context_numbers.shape == (1, 0)
