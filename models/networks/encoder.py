"""The fields of one side as one vector: what networks read of users, contexts, ads and behaviours."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bundle.schema import PADDING, Side
from models.networks.layers import Arena, full_name


@dataclass(frozen=True, slots=True)
class Column:
    """Where a field stands."""

    field: str
    """SIDE.FIELD, as EmbeddedConfig.dropped_fields names it."""
    name: str
    table: str
    columns: slice
    """Of the ids."""

    @property
    def width(self) -> int:
        """Ids of the field."""
        return int(self.columns.stop) - int(self.columns.start)


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring columns that are looked up together."""

    apart: str | None
    """The table, where it stands beside the arena's array."""
    columns: slice
    widths: list[int]
    """Of each field."""


class SideEncoder(nn.Module):
    """The fields of one side as one vector: embeddings, multi-valued ones averaged, then numbers.

    `only`: the fields of a behaviour, in the order in which its ids stand (FeatureSchema.history_columns); no numbers.
    Fields with vectors, whose columns are the last, have no part in it.
    """

    offsets: Tensor

    def __init__(self, arena: Arena, side: Side, only: tuple[str, ...] | None = None, place: str = "") -> None:
        super().__init__()
        by_name = {field.name: field for field in side.embedded_fields}
        fields = list(by_name.values()) if only is None else [by_name[name] for name in only if name in by_name]
        ends = np.cumsum([field.width for field in fields]).tolist()
        self.columns = [
            Column(full_name(place, field.name), field.name, arena.table(place, field), slice(end - field.width, end))
            for field, end in zip(fields, ends, strict=True)
            if arena.reads(place, field)
        ]
        """The fields that are looked up, in their order."""
        self.runs = _runs(arena, self.columns)
        self.widths = [each.width for each in self.columns]
        self.is_plain = len(self.columns) == len(fields) and all(each.apart is None for each in self.runs)
        """All fields are of the arena's array: one gather."""
        self.tables = tuple(arena.table(place, field) for field in fields for _ in range(field.width))
        """Of all columns with embeddings, as `offsets`."""
        self.register_buffer("offsets", arena.offsets(fields, place), persistent=False)
        self.numbers = side.number_columns if only is None else 0
        self.parts = [arena.dimension] * len(self.columns)
        """What each field takes of the vector."""
        self.narrow = False
        """Tables of a dimension of their own are not expanded (models/networks/merging.py)."""

    @property
    def dimension(self) -> int:
        """Of the vector."""
        return sum(self.parts) + self.numbers

    def forward(
        self, arena: Arena, ids: Tensor, numbers: Tensor | None = None, embedded: Tensor | None = None
    ) -> Tensor:
        """[..., dimension] of ids [..., columns] and numbers [..., number columns]. `embedded`: embeddings
        [..., columns, d] that were looked up already, of a plain encoder."""
        if self.is_plain:
            return self.joined(arena(*self.asked(ids)) if embedded is None else embedded, ids, numbers)
        pieces = []
        for run in self.runs:
            some = ids[..., run.columns]
            pieces.append(averaged(self._found(arena, some, run), some, run.widths))
        if self.numbers and numbers is not None:
            pieces.append(numbers)
        return torch.cat(pieces, dim=-1) if pieces else ids.new_zeros((*ids.shape[:-1], 0), dtype=torch.float32)

    def _found(self, arena: Arena, ids: Tensor, run: Run) -> Tensor:
        """Embeddings of the ids of a run."""
        if run.apart is None:
            found: Tensor = arena(ids, self.offsets[run.columns], self.tables[run.columns])
            return found
        table = arena.apart(run.apart)
        assert table is not None
        return table.narrow(ids) if self.narrow else table(ids)

    def rows(self, arena: Arena, ids: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The rows that ids [..., columns] look up, flat: by name of a table that stands apart, "" for the array."""
        for run in self.runs:
            some = ids[..., run.columns]
            table = arena.apart(run.apart) if run.apart is not None else None
            found = arena.rows(some, self.offsets[run.columns]) if table is None else table.rows(some)
            yield run.apart or "", found.flatten()

    def asked(self, ids: Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """What Arena.together is asked for the ids [..., columns] of a plain encoder."""
        return self.embedded(ids), self.offsets, self.tables

    def embedded(self, ids: Tensor) -> Tensor:
        """The columns that have embeddings, of ids [..., columns]."""
        columns = len(self.tables)
        return ids if ids.shape[-1] == columns else ids[..., :columns]

    def joined(self, embedded: Tensor, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """The same of embeddings [..., columns, d] that were looked up already, and of their ids; of a plain
        encoder."""
        flat = averaged(embedded, self.embedded(ids), self.widths)
        return torch.cat([flat, numbers], dim=-1) if self.numbers and numbers is not None else flat


def encoded(arena: Arena, asked: Sequence[tuple[SideEncoder, Tensor, Tensor | None]]) -> list[Tensor]:
    """What each encoder gives for its ids and numbers; those that are plain by one gather (Arena.together)."""
    plain = [encoder.asked(ids) for encoder, ids, _ in asked if encoder.is_plain]
    found = iter(arena.together(plain) if plain else [])
    return [encoder(arena, ids, numbers, next(found) if encoder.is_plain else None) for encoder, ids, numbers in asked]


def averaged(embedded: Tensor, ids: Tensor, widths: list[int]) -> Tensor:
    """Embeddings [..., columns, d] of ids [..., columns] as one vector; fields of several columns are averaged."""
    if all(width == 1 for width in widths):
        return embedded.flatten(-2)
    pieces = []
    for width, values, id_group in zip(
        widths, torch.split(embedded, widths, dim=-2), torch.split(ids, widths, dim=-1), strict=True
    ):
        if width > 1:
            filled = (id_group != PADDING).sum(-1, keepdim=True).clamp(min=1)
            pieces.append(values.sum(-2) / filled)
        else:
            pieces.append(values.squeeze(-2))
    return torch.cat(pieces, dim=-1)


def _runs(arena: Arena, columns: Sequence[Column]) -> list[Run]:
    found: list[Run] = []
    for each in columns:
        apart = each.table if arena.apart(each.table) is not None else None
        if found and found[-1].apart == apart and found[-1].columns.stop == each.columns.start:
            last = found.pop()
            found.append(Run(apart, slice(last.columns.start, each.columns.stop), [*last.widths, each.width]))
        else:
            found.append(Run(apart, each.columns, [each.width]))
    return found
