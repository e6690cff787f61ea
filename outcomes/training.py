"""The training log: a row an impression, with what the request was served with.

    request_id, user, time, profile..., context..., served_NAME...     alike in all rows of a request
    ad, position (from 0), click

Profile and histories are made of the user's record as the service read it and of what the request gave, which goes
first, in the way service/encode.py does it. A history that could not be read is empty here too, as it was there.
"""

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from bundle.errors import RecordError
from bundle.record import UserRecord, unpack
from outcomes.description import REQUEST, Description, Feature, History
from outcomes.durable import write
from outcomes.tables import path_of

log = logging.getLogger("adrank.outcomes")
LOG = "log"
KINDS: dict[str, pl.DataType] = {
    "integer": pl.Int64(),
    "text": pl.String(),
    "number": pl.Float64(),
    "list of integer": pl.List(pl.Int64()),
    "list of text": pl.List(pl.String()),
}
NO_AD = -(2**63) + 1
"""Stands in a history of integers for an id that is none: no request can name it, and a history keeps its length."""
MOST, LARGEST = 2**63 - 1, 3.4e38
"""What fits in the columns, and in the 32-bit floats that networks read."""
TRAIN, VALID = 0.8, 0.1
"""Shares of the log's requests by time; the rest is the test split."""


class TrainingLog:
    """Writes the log of one description."""

    def __init__(self, root: Path, description: Description) -> None:
        """Copies the tables that the log goes with into `root`."""
        self._root = root
        self._description = description
        d = description
        self.schema = {
            REQUEST: pl.String(),
            d.user.column: KINDS[d.user.kind],
            d.time: pl.Int64(),
            **{each.column: KINDS[each.kind] for each in (*d.profile, *d.context)},
            **{each.column: pl.List(KINDS[d.ad.kind]) for each in d.histories},
        }
        """Of a request's own columns."""
        description.copy_tables(root)

    def features(self, lines: Iterable[dict[str, Any]]) -> pl.DataFrame:
        """A row a raw answer, with the columns of `schema`."""
        rows = [self._row(line) for line in lines if line["answer"] is not None]
        rows = [row for row in rows if row[self._description.user.column] is not None]
        return pl.DataFrame({name: [row[name] for row in rows] for name in self.schema}, schema=self.schema)

    def write(self, begin_ms: int, features: pl.DataFrame, impressions: pl.DataFrame) -> None:
        """Replace the file of one span. Without impressions there is none."""
        path, d = path_of(self._root, LOG, begin_ms), self._description
        seen = impressions.select(
            REQUEST,
            pl.col("ad_id").cast(KINDS[d.ad.kind]).alias(d.ad.column),
            (pl.col("position") - 1).alias(d.position),
            pl.col("clicked").cast(pl.Int8).alias(d.label),
        )
        frame = features.join(seen, on=REQUEST, maintain_order="left_right")
        if len(frame):
            write(path, lambda part: frame.write_parquet(part, compression="zstd"))

    def describe(self) -> None:
        """Write dataset.yaml anew, split 80 : 10 : 10 by the times of requests."""
        files = sorted((self._root / LOG).glob("date=*/[0-9]*.parquet"))
        if not files:
            return
        time = self._description.time
        times = pl.scan_parquet(files, hive_partitioning=False).select(pl.col(time)).collect()[time].unique().sort()
        first = [int(len(times) * share) for share in (TRAIN, TRAIN + VALID)]
        if 0 < first[0] < first[1] < len(times):
            self._description.write_yaml(self._root, int(times[first[0]]), int(times[first[1]]))
        else:  # too few to be split
            self._description.write_yaml(self._root, None, None)

    def _row(self, line: dict[str, Any]) -> dict[str, Any]:
        d, asked = self._description, json.loads(line["asked"])
        given = asked.get("user") or {}
        record = _record(line)
        profile = {**record.profile, **given.get("profile", {})}
        context = asked.get("context", {})
        row = {
            REQUEST: line["head"]["request_id"],
            d.user.column: _single(asked["user_id"], d.user.kind),
            d.time: line["head"]["time_ms"],
            **{each.column: _value(profile.get(each.column), each) for each in d.profile},
            **{each.column: _value(context.get(each.column), each) for each in d.context},
        }
        for history in d.histories:
            row[history.column] = self._history(history, record, given.get("history", {}))
        return row

    def _history(self, history: History, record: UserRecord, given: dict[str, list[Any]]) -> list[Any]:
        ads: Sequence[Any]
        if history.name in given:
            ads = given[history.name]
        else:
            ads = [each.values[0] if each.values else None for each in record.events if each.kind in history.events]
        kind = self._description.ad.kind
        missing = NO_AD if kind == "integer" else ""
        found = (_single(each, kind) for each in ads[-history.max_length :])
        return [missing if each is None else each for each in found]


def _record(line: dict[str, Any]) -> UserRecord:
    if line["record"] is None:
        return UserRecord()
    try:
        return unpack(line["record"].encode())
    except RecordError as error:  # the service read the same bytes
        log.warning("answer %s: %s", line["id"], error)
        return UserRecord()


def _value(value: Any, feature: Feature) -> Any:
    if not feature.kind.startswith("list"):
        if isinstance(value, list) and feature.separator is not None:
            return feature.separator.join(str(each) for each in value if each is not None)
        return _single(value, feature.kind)
    values = value if isinstance(value, list) else [value]
    inner = feature.kind.removeprefix("list of ")
    return [found for each in values if (found := _single(each, inner)) is not None]


def _single(value: Any, kind: str) -> Any:
    """The value as its column holds it; None for one that no vocabulary of that type knows."""
    if value is None or isinstance(value, list):
        return None
    if kind == "text":
        return str(value)
    try:
        if kind == "number":
            return number if abs(number := float(value)) <= LARGEST else None
        whole = int(value)
    except (ValueError, OverflowError):
        return None
    return whole if abs(whole) <= MOST and not (isinstance(value, float) and whole != value) else None
