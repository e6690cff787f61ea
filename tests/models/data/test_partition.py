from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.data.dealing import Dealer, part_path
from models.data.layout import lay_out
from models.data.partition import BEHAVIOUR_ROWS, MOST_PARTITIONS, PARTITION_ROWS, partitions_for
from models.data.readers.raw import Raw, Stream
from models.data.spec import DatasetSpec

SPEC = DatasetSpec.model_validate(
    {
        "name": "s",
        "source": "table",
        "label": "y",
        "user": "u",
        "ad": "a",
        "time": "t",
        "ad_features": [{"column": "a"}],
        "user_features": [{"column": "u"}],
    }
)


def stream_of(rows: int) -> Stream:
    return Stream("log", ("y", "u", "a", "t"), rows, lambda: iter(()))


@pytest.mark.parametrize(
    ("log", "behaviours", "expected"),
    [
        (1, 0, 1),
        (PARTITION_ROWS, 0, 1),
        (PARTITION_ROWS + 1, 0, 2),
        (100 * PARTITION_ROWS, 0, 100),
        (10, 3 * BEHAVIOUR_ROWS, 3),
        (10**10, 0, MOST_PARTITIONS),
    ],
)
def test_as_many_partitions_as_keep_each_small(log: int, behaviours: int, expected: int) -> None:
    raw = Raw(stream_of(log), behaviours=stream_of(behaviours))
    assert partitions_for(lay_out(SPEC, raw)) == expected


@pytest.mark.parametrize("ids", [range(1_000), [f"u{i}" for i in range(1_000)]])
def test_users_are_dealt_whole_evenly_and_in_order(ids: Any, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [*ids] * 3, "row": range(3_000)})
    with Dealer(tmp_path, "log", 4) as dealer:
        for piece in frame.iter_slices(700):
            dealer.deal(piece)
    parts = [pl.read_parquet(part_path(tmp_path, "log", i)) for i in range(4)]
    assert sum(map(len, parts)) == 3_000
    assert all(part["row"].is_sorted() for part in parts)
    assert sum(part["user"].n_unique() for part in parts) == 1_000
    # 250 users expected in each; 5 standard deviations are 68.
    assert all(abs(part["user"].n_unique() - 250) < 68 for part in parts)
