"""Prepared Parquet -> batches of tensors, request-grouped: common features once a request, candidates flattened.

B requests, M candidates in all, L behaviours, Cu/Cc/A/H id columns of user, context, ad and behaviour.
Memory is bounded by one part file; its requests are shuffled, and the order of the parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from bundle.schema import HistorySpec, Side
from models.data.prepared import PreparedData
from models.data.spec import CLICK, DataError

Lists = tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]
"""Flat values and the offsets of each row's list in them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's worth of requests."""

    user: Tensor
    """int64[B, Cu]"""
    user_numbers: Tensor
    """float32[B, Nu]"""
    context: Tensor
    """int64[B, Cc]"""
    context_numbers: Tensor
    """float32[B, Nc]"""
    histories: dict[str, Tensor]
    """Name -> int64[B, L, H], oldest first, padded with 0 at the end."""
    ads: Tensor
    """int64[M, A]"""
    ad_numbers: Tensor
    """float32[M, Na]"""
    request: Tensor
    """int64[M]: which of the B requests a candidate belongs to."""
    labels: Tensor
    """float32[M]"""
    positions: Tensor
    """int64[M], 0 where unknown"""
    rows: npt.NDArray[np.int32]
    """int32[M]: catalogue rows of the candidates"""
    users: npt.NDArray[np.int64]
    """int64[M]: user of each candidate, the groups of GAUC"""
    truth: npt.NDArray[np.float32] | None
    """float32[M]: true probability of the label, simulated data only"""
    further: dict[str, Tensor] = field(default_factory=dict)
    """Name -> float32[M]: the dataset's other labels, the click among them where `labels` is another"""


@dataclass(frozen=True, slots=True)
class _Part:
    """One Parquet file in memory."""

    users: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    matrices: dict[str, npt.NDArray[np.int32] | npt.NDArray[np.float32]]
    histories: dict[str, Lists]
    ads: Lists
    labels: dict[str, npt.NDArray[np.int8]]
    positions: npt.NDArray[np.int64] | None
    truth: npt.NDArray[np.float32] | None


def count(data: PreparedData, split: str) -> int:
    """Impressions in a split, those left out by `data.since` and `data.only` not counted."""
    stored = data.prepared.splits[split].impressions
    if not stored or (data.only is None and (data.since is None or split != "train")):
        return stored
    total = 0
    for path in data.parts(split):
        part = _read(path, data)
        total += int(np.diff(part.ads[1])[_wanted(part, data, split)].sum())
    return total


def recent(data: PreparedData, since: int | float) -> PreparedData:
    """The data with a training split that begins at `since`. DataError when nothing is left of it."""
    found = replace(data, since=since)
    if not count(found, "train"):
        last = max(pq.read_table(path, columns=["time"])["time"].to_numpy().max() for path in data.parts("train"))
        raise DataError(f"{data.folder}: no training row is at {since} or later, the last is at {last}")
    return found


def _wanted(part: "_Part", data: PreparedData, split: str) -> npt.NDArray[np.int64]:
    """Which requests of a part are read."""
    wanted = np.ones(len(part.users), dtype=np.bool_)
    if data.since is not None and split == "train":
        wanted &= part.times >= data.since
    if data.only is not None:
        column, value = data.only
        wanted &= part.matrices["context_ids"][:, column] == value
    return np.flatnonzero(wanted)


def batches(data: PreparedData, split: str, size: int, seed: int | None = None) -> Iterator[Batch]:
    """All requests of a split in batches of about `size` impressions; shuffled when there is a seed.

    The same seed gives the same batches in the same order. Of the training split, what is before `data.since` is left
    out.
    """
    parts = data.parts(split)
    generator = np.random.default_rng(seed) if seed is not None else None
    order = generator.permutation(len(parts)) if generator else np.arange(len(parts))
    for index in order:
        part = _read(parts[index], data)
        requests = _wanted(part, data, split)
        if not len(requests):
            continue
        if generator:
            requests = generator.permutation(requests)
        ends = np.cumsum(np.diff(part.ads[1])[requests])
        cuts = np.searchsorted(ends, np.arange(size, int(ends[-1]) + size, size)) + 1
        start = 0
        for stop in np.unique(np.minimum(cuts, len(requests))):
            yield _batch(part, requests[start:stop], data)
            start = stop


def _read(path: Path, data: PreparedData) -> _Part:
    table = pq.read_table(path)
    matrices = {
        name: _matrix(table, name, width, kind)
        for prefix, side in (("user", data.schema.user), ("context", data.schema.context))
        for name, width, kind in _widths(prefix, side)
    }
    names = {CLICK: "labels"} | {name: f"label_{name}" for name in data.prepared.spec.labels}
    labels = {name: _lists(table, column)[0].astype(np.int8) for name, column in names.items()}
    truth = "truth" if data.label == CLICK else f"truth_{data.label}"
    return _Part(
        users=table["user"].to_numpy(),
        times=table["time"].to_numpy(),
        matrices=matrices,
        histories={h.name: _lists(table, f"history_{h.name}") for h in data.schema.histories},
        ads=_lists(table, "ads"),
        labels=labels,
        positions=_lists(table, "positions")[0].astype(np.int64) if "positions" in table.column_names else None,
        truth=_lists(table, truth)[0].astype(np.float32) if truth in table.column_names else None,
    )


def _widths(prefix: str, side: Side) -> list[tuple[str, int, type]]:
    return [(f"{prefix}_ids", side.id_columns, np.int32), (f"{prefix}_numbers", side.number_columns, np.float32)]


def _matrix(table: pa.Table, name: str, width: int, kind: type) -> npt.NDArray[np.int32] | npt.NDArray[np.float32]:
    if width == 0:
        return np.zeros((table.num_rows, 0), dtype=kind)
    values: npt.NDArray[np.int32] = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return values.reshape(-1, width)


def _lists(table: pa.Table, name: str) -> Lists:
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], type=column.type)
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values, column.offsets.to_numpy().astype(np.int64) - column.offsets[0].as_py()


def _pick(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions in the flat values of the lists of `rows`, one after the other, and each list's length."""
    lengths = offsets[rows + 1] - offsets[rows]
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(offsets[rows] - starts, lengths), lengths


def _batch(part: _Part, requests: npt.NDArray[np.int64], data: PreparedData) -> Batch:
    flat, lengths = _pick(part.ads[1], requests)
    rows = part.ads[0][flat]
    ids = {name: torch.from_numpy(matrix[requests]) for name, matrix in part.matrices.items()}
    labels = {name: torch.from_numpy(values[flat]).float() for name, values in part.labels.items()}
    return Batch(
        user=ids["user_ids"].long(),
        user_numbers=ids["user_numbers"],
        context=ids["context_ids"].long(),
        context_numbers=ids["context_numbers"],
        histories={h.name: _history(part.histories[h.name], requests, h, data) for h in data.schema.histories},
        ads=torch.from_numpy(data.ads.fields[rows]).long(),
        ad_numbers=torch.from_numpy(data.ads.numbers[rows]),
        request=torch.from_numpy(np.repeat(np.arange(len(requests)), lengths)),
        labels=labels.pop(data.label),
        positions=torch.from_numpy(
            part.positions[flat] if part.positions is not None else np.zeros(len(flat), np.int64)
        ),
        rows=rows,
        users=np.repeat(part.users[requests], lengths),
        truth=part.truth[flat] if part.truth is not None else None,
        further=labels,
    )


def _history(lists: Lists, requests: npt.NDArray[np.int64], history: HistorySpec, data: PreparedData) -> Tensor:
    """int64[B, L, H], L the longest of the batch and at least 1."""
    values, offsets = lists
    columns = data.schema.history_columns(history)
    flat, lengths = _pick(offsets, requests)
    stored = values[flat]
    if not history.of_ads:
        stored, lengths = stored.reshape(-1, len(columns)), lengths // len(columns)
    behaviours = data.ads.fields[stored][:, columns] if history.of_ads else stored
    padded = np.zeros((len(requests), max(1, int(lengths.max(initial=1))), len(columns)), dtype=np.int64)
    row = np.repeat(np.arange(len(requests)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    padded[row, place] = behaviours
    return torch.from_numpy(padded)
