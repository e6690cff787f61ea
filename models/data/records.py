"""Each user's packed features at the end of the log (bundle/record.py), made column-wise: no Python per event.

The JSON is written by polars; a test holds it equal to what `unpack` reads back.
"""

import json
import mmap
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import polars as pl

from bundle.vocabulary import Vocabulary
from models.data.columns import flat
from models.data.layout import Layout
from models.data.people import Partition
from models.data.spec import HistoryColumn

COPY_USERS = 50_000
"""Records put in order at a time."""

KINDS = {1: "click", 0: "impression"}


class RecordWriter:
    """Records are appended partition by partition, and put in the order of user ids at the end."""

    def __init__(self, scratch: Path) -> None:
        self._path = scratch / "records"
        self._file = self._path.open("wb")
        self._users: list[pl.Series] = []
        self._lengths: list[npt.NDArray[np.int64]] = []

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, layout: Layout, part: Partition) -> None:
        """Append the records of one partition's users."""
        if part.people.is_empty():
            return
        records = pack_users(layout, part)
        packed = records["record"].cast(pl.Binary)
        self._users.append(records["user"].cast(pl.String))
        self._lengths.append(packed.bin.size().cast(pl.Int64).to_numpy())
        self._file.writelines(packed)

    def finish(self, folder: Path) -> None:
        """Write ids.npy, offsets.npy and records.npy into `folder`."""
        self._file.close()
        users = pl.concat(self._users)
        order = users.arg_sort().to_numpy().astype(np.int64)
        lengths = np.concatenate(self._lengths)
        starts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
        Vocabulary(flat(users[order])).save(folder / "ids.npy")
        offsets = np.concatenate(([0], np.cumsum(lengths[order])))
        np.save(folder / "offsets.npy", offsets.astype(np.int64))
        target = np.lib.format.open_memmap(folder / "records.npy", mode="w+", dtype=np.uint8, shape=(int(offsets[-1]),))
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
            for first in range(0, len(order), COPY_USERS):
                some = order[first : first + COPY_USERS]
                places = zip(starts[some].tolist(), (starts[some] + lengths[some]).tolist(), strict=True)
                block = b"".join([source[start:end] for start, end in places])
                target[offsets[first] : offsets[first] + len(block)] = np.frombuffer(block, dtype=np.uint8)
        target.flush()


def pack_users(layout: Layout, part: Partition) -> pl.DataFrame:
    """user, record (String): profile line and event lines of every user of a partition."""
    profiles = part.people.select("user", "code").with_columns(record=_profiles(layout, part) + "\n")
    kept = [_events(layout, part, history, kinds) for history, kinds in stored(layout.spec.histories)]
    events = [frame for frame in kept if not frame.is_empty()]
    if not events:
        return profiles.select("user", "record")
    lines = (
        pl.concat(events)
        .sort("code", "time", "row", maintain_order=True)
        .group_by("code", maintain_order=True)
        .agg(pl.col("line").str.join(""))
    )
    joined = profiles.join(lines, on="code", how="left", maintain_order="left")
    return joined.select("user", record=pl.col("record") + pl.col("line").fill_null(""))


def stored(histories: tuple[HistoryColumn, ...]) -> list[tuple[HistoryColumn, list[str]]]:
    """Which history each kind of event is stored from: the longest that has it, so that an event is stored once."""
    longest: dict[str, HistoryColumn] = {}
    for history in histories:
        for kind in history.events:
            if kind not in longest or history.max_length > longest[kind].max_length:
                longest[kind] = history
    return [
        (history, kinds)
        for history in histories
        if (kinds := [k for k, h in longest.items() if h.name == history.name])
    ]


def _events(layout: Layout, part: Partition, history: HistoryColumn, kinds: list[str]) -> pl.DataFrame:
    """code, time, row, line: the last `max_length` events of each kind, listed ones at time 0 and first."""
    first = history.events[0]
    frames = []
    if history.source != "logged" and history.column is not None and first in kinds:
        listed = part.people.select("code", ad=pl.col(f"h:{history.column}").list.tail(history.max_length))
        listed = listed.filter(pl.col("ad").list.len() > 0).explode("ad")
        frames.append(listed.with_columns(time=pl.lit(0, pl.Int64), row=pl.lit(-1, pl.Int64), kind=pl.lit(first)))
    log = part.log
    if history.source == "logged" and first in kinds and not log.is_empty():
        newest = log.group_by("code", maintain_order=True).last().select("code", since="time", ad=f"l:{history.column}")
        log = log.join(newest.select("code", "since"), on="code").filter(pl.col("time") >= pl.col("since"))
        served = newest.select("code", pl.col("ad").list.tail(history.max_length)).filter(pl.col("ad").list.len() > 0)
        served = served.explode("ad")
        frames.append(served.with_columns(time=pl.lit(0, pl.Int64), row=pl.lit(-1, pl.Int64), kind=pl.lit(first)))
    if history.source in ("log", "logged") and not log.is_empty():
        kind = pl.col("label").replace_strict(KINDS, return_dtype=pl.String)
        timed = log.select("code", "ad", "time", "row", kind=kind)
        frames.append(timed.filter(pl.col("kind").is_in(kinds)))
    if history.source == "behaviours" and first in kinds and not part.behaviours.is_empty():
        carried = ["ad"] if history.of_ads else [f"f:{name}" for name in history.fields]
        frames.append(part.behaviours.select("code", *carried, "time", "row", kind=pl.lit(first)))
    if not frames:
        return pl.DataFrame()
    events = pl.concat(frames, how="diagonal")
    last = events.group_by("code", "kind", maintain_order=True).tail(history.max_length)
    values = ["ad"] if history.of_ads else [f"f:{name}" for name in history.fields]
    time = (pl.col("time") * layout.raw.time_unit_ms).cast(pl.String)
    texts = [_json(last[name]).alias(name) for name in values]
    return last.with_columns(texts).select(
        "code",
        "time",
        "row",
        line=pl.concat_str(
            [
                pl.lit('["'),
                "kind",
                pl.lit('",'),
                time,
                *(p for v in values for p in (pl.lit(","), pl.col(v))),
                pl.lit("]\n"),
            ]
        ),
    )


def _profiles(layout: Layout, part: Partition) -> pl.Series:
    """The raw user features as one JSON object a user; those that sit in the log as the user's last row has them."""
    people = part.people
    if layout.users is None and not part.log.is_empty():
        latest = part.log.group_by("code", maintain_order=True).last().select("code", pl.col("^u:.*$"))
        people = people.join(latest, on="code", how="left", maintain_order="left")
    features = {f.column: layout.user_column(f) for f in layout.spec.user_features}
    if not features:
        return pl.Series("record", ["{}"]).extend_constant("{}", len(people) - 1)
    columns = [
        pl.col(column).fill_nan(None).alias(name) if people.schema[column] == pl.Float64 else pl.col(column).alias(name)
        for name, column in features.items()
    ]
    return people.select(record=pl.struct(columns).struct.json_encode())["record"]


def _json(series: pl.Series) -> pl.Series:
    """Each value as JSON text; each distinct text is escaped once."""
    if series.dtype == pl.Int64:
        return series.cast(pl.String).fill_null("null")
    distinct = series.unique().drop_nulls()
    escaped = pl.Series([json.dumps(value, ensure_ascii=False) for value in distinct], dtype=pl.String)
    return series.replace_strict(distinct, escaped, default="null", return_dtype=pl.String)
