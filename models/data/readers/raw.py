"""What every reader hands on: a log and a behaviour log in bounded pieces, and whole tables of users and ads.

Columns bear the names that the description uses; values are still as the source has them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from models.data.spec import DatasetSpec

CHUNK_ROWS = 500_000
"""Largest piece of a log that is in memory at once. Ten columns of it are 40 MB."""

SPLIT = "split"
"""Column of a log that says train, valid or test, when the source comes split."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a log."""

    file: str
    first_row: int
    """Where the piece starts in its file, counted from 0, header not counted."""
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Stream:
    """A log that is read piece by piece, as often as asked."""

    file: str
    """Where it comes from, for messages."""
    columns: tuple[str, ...]
    """All columns it has; the pieces hold those that the description needs."""
    rows: int
    """How many rows there are: exact for Parquet, estimated for text."""
    chunks: Callable[[], Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that fits in memory."""

    file: str
    frame: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Raw:
    """A source, opened."""

    log: Stream
    users: Table | None = None
    ads: Table | None = None
    behaviours: Stream | None = None
    time_unit_ms: int = 1
    """Milliseconds in one unit of the log's time."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one kind of source is read."""

    files: Callable[[DatasetSpec, Path], list[Path]]
    """All files it would read. DataError when one is missing."""
    open: Callable[[DatasetSpec, Path, int], Raw]
    """The opened source, its logs in pieces of at most so many rows."""


def wanted(spec: DatasetSpec, *, users_in_log: bool, ads_in_log: bool) -> list[str]:
    """The columns of the log that the description needs, each once, in a fixed order."""
    columns = [spec.label, spec.user, spec.ad, spec.time, *spec.request]
    columns += [name for name in (spec.position, spec.truth) if name is not None]
    columns += [name for label in spec.labels.values() for name in (label.column, label.truth) if name is not None]
    columns += [feature.column for feature in spec.context_features]
    columns += [h.column for h in spec.histories if h.source == "logged" and h.column is not None]
    if users_in_log:
        columns += [feature.column for feature in spec.user_features]
        columns += [h.column for h in spec.histories if h.source != "logged" and h.column is not None]
    if ads_in_log:
        columns += [feature.column for feature in spec.ad_features]
        columns += [spec.bid] if spec.bid is not None else []
        columns += [rule.ad for rule in spec.targeting]
    return list(dict.fromkeys(columns))


def wanted_behaviours(spec: DatasetSpec) -> list[str]:
    """The columns of the behaviour log that the description needs."""
    columns = [spec.user, spec.time]
    for history in spec.histories:
        if history.source == "behaviours":
            columns += [spec.ad] if history.of_ads else history.fields
    return list(dict.fromkeys(columns))
