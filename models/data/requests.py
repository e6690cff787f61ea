"""One partition of the log -> request-grouped rows, encoded."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet

from bundle.encoding import Ragged
from bundle.schema import Side
from models.data.columns import encodable, flat
from models.data.fit import Fitted
from models.data.histories import Behaviours, Int32, Lists, Windows, last
from models.data.layout import Layout
from models.data.people import Partition
from models.data.prepared import SPLITS, SplitSize
from models.data.spec import DataError, DatasetSpec, HistoryColumn

GROUP_ROWS = 65_536
"""Requests encoded and written at a time: one row group of a part."""

LABELS = {"click": 1, "impression": 0}


def write_requests(folder: Path, number: int, layout: Layout, fitted: Fitted, part: Partition) -> list[SplitSize]:
    """Write part `number` of each split that has rows; the sizes of the three splits."""
    requests = group(layout, part.log)
    lists = {name: _lists(part, name, fitted) for name in layout.list_columns}
    sizes = []
    for split in range(len(SPLITS)):
        mine = requests.filter(pl.col("split") == split).sort("time", maintain_order=True)
        sizes.append(_size(mine, layout.spec))
        if mine.is_empty():
            continue
        histories = {h.name: _windows(fitted, part, h, lists, mine, split) for h in layout.spec.histories}
        path = folder / SPLITS[split] / f"part-{number:05d}.parquet"
        writer = None
        for first in range(0, len(mine), GROUP_ROWS):
            table = _encode(layout, fitted, part, mine.slice(first, GROUP_ROWS), histories, first)
            writer = writer or pa.parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
    return sizes


def group(layout: Layout, log: pl.DataFrame) -> pl.DataFrame:
    """One row a request: its user, split, earliest time and common features; as lists ad, label, position, truth, and
    further labels with theirs.

    `log` is sorted by user and time. DataError when a common feature differs within a request.
    """
    keys = ["split", "code", *(name for name in layout.request_columns if name != "user")]
    common = [*layout.log_features(), *(f"l:{name}" for name in layout.logged_columns)]
    listed = [name for name in ("ad", *_per_ad(layout.spec)) if name in log.columns]
    alike = [pl.col(name).eq_missing(pl.col(name).first()).all().alias(f"alike:{name}") for name in common]
    grouped = log.group_by(keys, maintain_order=True).agg(
        pl.col("user").first(),
        pl.col("time").first().alias("earliest"),
        *(pl.col(name).first() for name in common if name not in keys),
        *(pl.col(name) for name in listed),
        *(alike if layout.spec.request else []),
    )
    if layout.spec.request:
        for name in common:
            different = grouped.filter(~pl.col(f"alike:{name}"))
            if len(different):
                row = different.row(0, named=True)
                raise DataError(
                    f"{layout.raw.log.file}: column {name[2:]!r} differs within one request of user {row['user']!r} "
                    f"at time {row['earliest']}: add it to `request` ({', '.join(layout.spec.request)})"
                )
    return grouped.with_columns(time="earliest").drop(
        "earliest", *(f"alike:{n}" for n in common if layout.spec.request)
    )


def _size(requests: pl.DataFrame, spec: DatasetSpec) -> SplitSize:
    labels = requests["label"].explode()
    further = {name: int(requests[f"y:{name}"].explode().sum()) for name in spec.labels}
    return SplitSize(requests=len(requests), impressions=len(labels), clicks=int(labels.sum()), further=further)


def _lists(part: Partition, name: str, fitted: Fitted) -> Lists:
    """A list column of the user table as catalogue rows."""
    return _rows_of(part.people[f"h:{name}"], fitted)


def _rows_of(lists: pl.Series, fitted: Fitted) -> Lists:
    """Lists of ads as catalogue rows."""
    column = encodable(lists)
    assert isinstance(column, Ragged)
    return Lists(fitted.index.ids_of(column.values)[:, None], column.offsets)


def _windows(
    fitted: Fitted, part: Partition, history: HistoryColumn, lists: dict[str, Lists], requests: pl.DataFrame, split: int
) -> Windows:
    """Where a history of each of the requests, all of one split, lies."""
    user, time = requests["code"].to_numpy(), requests["time"].to_numpy()
    if history.source == "logged":
        served = _rows_of(requests[f"l:{history.column}"], fitted)
        return last(history.max_length, np.arange(len(requests)), time, served, None, 1)
    listed = lists[history.column] if history.column is not None else None
    timed = _timed(fitted, part, history, split)
    return last(history.max_length, user, time, listed, timed, 1 if history.of_ads else len(history.fields))


def _timed(fitted: Fitted, part: Partition, history: HistoryColumn, split: int) -> Behaviours | None:
    """What a history of requests of `split` may read: of the log, rows of that split and earlier ones only."""
    if history.source == "log":
        kinds = [LABELS[event] for event in history.events]
        frame = part.log.filter(pl.col("label").is_in(kinds), pl.col("split") <= split)
    elif history.source == "behaviours" and not part.behaviours.is_empty():
        frame = part.behaviours
    else:
        return None
    return Behaviours(_values(fitted, history, frame), frame["code"].to_numpy(), frame["time"].to_numpy())


def _values(fitted: Fitted, history: HistoryColumn, frame: pl.DataFrame) -> Int32:
    """One row a behaviour: the ad's catalogue row, or the ids of the fields it carries."""
    if history.of_ads:
        return fitted.index.ids_of(flat(frame["ad"]))[:, None]
    fields = {field.name: field for field in fitted.encoder.schema.ad.fields}
    ids = [fitted.encoder.vocabulary_of(fields[name]).ids_of(flat(frame[f"f:{name}"])) for name in history.fields]
    return np.stack(ids, axis=1)


def _encode(
    layout: Layout,
    fitted: Fitted,
    part: Partition,
    requests: pl.DataFrame,
    histories: dict[str, Windows],
    first: int,
) -> pa.Table:
    """Requests as rows of a part, the first being number `first` of it; models/data/prepared.py has the columns."""
    schema = fitted.encoder.schema
    people = part.people.select(pl.exclude("^h:.*$"))[requests["code"]]
    columns: dict[str, pa.Array] = {"user": people["index"].to_arrow(), "time": requests["time"].to_arrow()}
    user_columns = {f.column: layout.user_column(f) for f in layout.spec.user_features}
    users = {name: (requests if c.startswith("u:") else people)[c] for name, c in user_columns.items()}
    columns |= _side("user", fitted, schema.user, users)
    contexts = {field.name: requests[f"c:{field.name}"] for field in schema.context.fields}
    columns |= _side("context", fitted, schema.context, contexts)
    for name, windows in histories.items():
        found = windows.sequences(first, len(requests))
        offsets = found.offsets * found.values.shape[1]
        columns[f"history_{name}"] = _list_array(found.values.ravel(), offsets, pa.int32())
    offsets = np.concatenate(([0], np.cumsum(requests["ad"].list.len().to_numpy(), dtype=np.int64)))
    columns["ads"] = _list_array(fitted.index.ids_of(flat(requests["ad"].explode())), offsets, pa.int32())
    for name, (called, dtype) in _per_ad(layout.spec).items():
        if name in requests.columns:
            columns[called] = _list_array(requests[name].explode().to_numpy(), offsets, dtype)
    return pa.table(columns)


def _per_ad(spec: DatasetSpec) -> dict[str, tuple[str, pa.DataType]]:
    """What an impression may have, by its column in the normalised log: the column in a part, and its type."""
    known = {"label": ("labels", pa.int8()), "position": ("positions", pa.int16()), "truth": ("truth", pa.float32())}
    known |= {f"y:{name}": (f"label_{name}", pa.int8()) for name in spec.labels}
    return known | {f"p:{name}": (f"truth_{name}", pa.float32()) for name in spec.labels}


def _side(name: str, fitted: Fitted, side: Side, values: dict[str, pl.Series]) -> dict[str, pa.Array]:
    if not side.fields:
        return {}
    rows = len(next(iter(values.values())))
    ids, numbers = fitted.encoder.encode_rows(side, {field: encodable(v) for field, v in values.items()}, rows)
    arrays = {f"{name}_ids": ids, f"{name}_numbers": numbers}
    return {
        key: pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), a.shape[1]) for key, a in arrays.items() if a.size
    }


def _list_array(values: npt.NDArray[np.generic], offsets: npt.NDArray[np.int64], dtype: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values, type=dtype))
