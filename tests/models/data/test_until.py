"""Rows from `until` on are as if they had not been logged."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.data.prepare import prepare
from models.data.spec import DataError
from tests.models.data import decoded
from tests.models.data.test_prepare import VALID_FROM, description, world

UNTIL = 870


def written(folder: Path, frames: dict[str, pl.DataFrame]) -> Path:
    folder.mkdir()
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


@pytest.mark.parametrize("chunk_rows", [37, 100_000])
def test_it_equals_a_log_that_ends_there(tmp_path: Path, chunk_rows: int) -> None:
    frames = world(600)
    shorter = frames | {"log": frames["log"].filter(pl.col("time") < UNTIL)}
    split: dict[str, Any] = {"valid_from": VALID_FROM}
    kept = prepare(
        description(split=split | {"until": UNTIL}),
        written(tmp_path / "whole", frames),
        tmp_path / "a",
        progress=False,
        chunk_rows=chunk_rows,
    )
    cut = prepare(
        description(split=split), written(tmp_path / "cut", shorter), tmp_path / "b", progress=False, chunk_rows=37
    )
    assert 0 < kept.prepared.splits["valid"].impressions < kept.prepared.splits["train"].impressions
    assert kept.prepared.splits == cut.prepared.splits
    assert kept.prepared.users == cut.prepared.users
    assert decoded.everything(kept) == decoded.everything(cut)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"valid_from": 5, "until": 5}, "^small: split.valid_from 5 is not before split.until 5$"),
        ({"valid_from": 5, "test_from": 9, "until": 7}, "^small: split.test_from 9 is not before split.until 7$"),
        ({"test_from": 9, "until": 9}, "^small: split.test_from 9 is not before split.until 9$"),
        ({"valid_from": 9, "test_from": 9}, "^small: split.valid_from 9 is not before split.test_from 9$"),
        ({"until": -5}, r"split 'train' is empty \(split.until is -5\); rows: "),
        ({"valid_from": 5000, "until": 9000}, r"split 'valid' is empty \(split.valid_from is 5000\) \(split.until"),
    ],
)
def test_an_end_that_leaves_a_split_empty_is_refused(tmp_path: Path, split: dict[str, int], message: str) -> None:
    source = written(tmp_path / "source", world(200))
    with pytest.raises(DataError, match=message):
        prepare(description(split=split), source, tmp_path / "out", progress=False)
