"""The one pass over each log: every piece is validated, counted and dealt out by user.

A partition holds all rows of its users, so that histories and requests can be made one partition at a time.
"""

from pathlib import Path
from typing import Never

import polars as pl
from tqdm import tqdm

from models.data.dealing import Dealer
from models.data.gathering import Gathered
from models.data.layout import Layout
from models.data.spec import DataError

LOG = "log"
BEHAVIOURS = "behaviours"

PARTITION_ROWS = 1_000_000
"""Rows of the log in one partition, about; making requests of so many takes some hundred MB."""
BEHAVIOUR_ROWS = 8_000_000
"""Rows of the behaviour log in one partition, about: three or four narrow columns."""
MOST_PARTITIONS = 512
"""Each partition is an open file while the log is dealt out, and systems often allow 1,024."""

Types = dict[str, pl.DataType]


def partitions_for(layout: Layout) -> int:
    """How many partitions keep each of them small."""
    behaviours = layout.raw.behaviours.rows if layout.raw.behaviours is not None else 0
    wanted = max(1, -(-layout.raw.log.rows // PARTITION_ROWS), -(-behaviours // BEHAVIOUR_ROWS))
    return min(wanted, MOST_PARTITIONS)


def partition_log(layout: Layout, folder: Path, partitions: int, *, progress: bool) -> Gathered:
    """Deal the logs out into `folder` and gather what fitting needs. DataError for the first row that is wrong."""
    gathered = Gathered(layout)
    types = _types_of_tables(layout)
    log = layout.raw.log
    with _bar(log.rows, "reading the log", progress) as bar, Dealer(folder, LOG, partitions) as dealer:
        row = 0
        for chunk in log.chunks():
            frame = layout.normalise(chunk, row)
            _same_types(types, frame, chunk.file)
            row += len(frame)
            bar.update(len(frame))
            frame = _ended(layout, frame)
            gathered.add(frame)
            dealer.deal(frame.select(pl.exclude("^[ft]:.*$", "^bid$")))
    gathered.check_splits()
    gathered.check_ads()
    if layout.behaviour_histories and layout.raw.behaviours is not None:
        stream = layout.raw.behaviours
        with _bar(stream.rows, "reading behaviours", progress) as bar, Dealer(folder, BEHAVIOURS, partitions) as dealer:
            row = 0
            for chunk in stream.chunks():
                frame = layout.normalise_behaviours(chunk, row)
                _same_types(types, frame, chunk.file)
                row += len(frame)
                bar.update(len(frame))
                frame = _ended(layout, frame)
                gathered.add_behaviours(frame)
                dealer.deal(frame)
    return gathered


def _ended(layout: Layout, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows before the description's end. They keep their numbers in the whole log."""
    until = layout.spec.split.until
    return frame if until is None else frame.filter(pl.col("time") < until)


def _bar(rows: int, what: str, progress: bool) -> "tqdm[Never]":
    return tqdm(total=rows, unit=" rows", unit_scale=True, desc=what, disable=not progress)


def _types_of_tables(layout: Layout) -> Types:
    types: Types = {}
    if layout.users is not None:
        types["user"] = layout.users.schema["user"]
    if layout.ads is not None:
        types |= {name: dtype for name, dtype in layout.ads.schema.items() if name == "ad" or name.startswith("f:")}
    for name in layout.list_columns:
        assert layout.users is not None
        dtype = layout.users.schema[f"h:{name}"]
        assert isinstance(dtype, pl.List)
        known = types.setdefault("ad", dtype.inner)  # type: ignore[arg-type]
        if known != dtype.inner:
            raise DataError(
                f"{layout.spec.name}: list column {name!r} of the user table holds {dtype}, the ad ids are {known}"
            )
    return types


def _same_types(types: Types, frame: pl.DataFrame, file: str) -> None:
    """DataError when a column's type differs from what it was before: integers in one file, text in another."""
    for name, dtype in frame.schema.items():
        known = types.setdefault(name, dtype)
        if known != dtype:
            raise DataError(f"{file}: column {name.split(':', 1)[-1]!r} holds {dtype}, elsewhere {known}")
