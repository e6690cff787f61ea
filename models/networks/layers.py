"""Layers that all models share: the embedding arena and the multi-layer perceptron."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bundle.precision import Stored
from bundle.rounding import row_bytes
from bundle.schema import PADDING, UNKNOWN, FeatureSchema, FieldSpec, HistorySpec, Side
from models.networks.activations import Activation
from models.networks.low_rank import entry, finish
from models.networks.rounding import rounded


class Arena(nn.Module):
    """All embedding tables in one: a single gather serves all columns of a side.

    Table `t` (a vocabulary, or a bucketed field) has its own range of rows; fields of one vocabulary share it. Row 0 is
    the padding of all tables: always zero, never trained. The unknown of a table starts at zero too, the mean of its
    embeddings: where no training row is unknown it stays there, and an unknown ad gets an average score.
    """

    def __init__(self, schema: FeatureSchema, dimension: int, std: float, *, shared: bool = True) -> None:
        """`shared`: fields of one vocabulary share a table. Otherwise each field has its own in each of its places
        (user, context, ad, every history), as linear models need: what a value says of a candidate is not what it says
        among the behaviours."""
        super().__init__()
        self.dimension, self.shared = dimension, shared
        self.starts: dict[str, int] = {}
        self.fields: dict[str, FieldSpec] = {}
        """By table: one of the fields whose ids its rows are."""
        rows = 1
        for place, field in places(schema):
            table = self.table(place, field)
            if table not in self.starts:
                self.starts[table] = rows - 1  # id 1 of the table is arena row `rows`
                self.fields[table] = field
                rows += field.size - 1
        self.values: dict[str, Stored] = dict.fromkeys(self.starts, "fp32")
        """By table: what its rows are stored in where it is served. It gives what is left of them then."""
        self.weight = nn.Parameter(torch.empty(rows, dimension))
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[PADDING].zero_()
            self.weight[[start + UNKNOWN for start in self.starts.values()]] = 0.0

    def table(self, place: str, field: FieldSpec) -> str:
        """The name of the table of a field in one of its places."""
        return table_of(field) if self.shared else f"{place}.{field.name}"

    def offsets(self, fields: list[FieldSpec], place: str = "") -> Tensor:
        """What to add to the ids of these fields' columns, int64[columns]. `place` matters where tables are not
        shared."""
        starts = [self.starts[self.table(place, field)] for field in fields for _ in range(field.width)]
        return torch.tensor(starts, dtype=torch.int64)

    def rows(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Arena rows of ids [..., columns]."""
        return torch.where(ids == PADDING, ids, ids + offsets)

    def stored_bytes(self) -> int:
        """What the tables take where they are served, each with a row of padding of its own."""
        return sum(f.size * row_bytes(self.values[name], self.dimension) for name, f in self.fields.items())

    def forward(self, ids: Tensor, offsets: Tensor, tables: tuple[str, ...]) -> Tensor:
        """Embeddings [..., columns, d] of ids [..., columns]; `offsets` and `tables` are those of the columns."""
        return self._as_stored(F.embedding(self.rows(ids, offsets), self.weight, padding_idx=PADDING), tables)

    def _as_stored(self, found: Tensor, tables: tuple[str, ...]) -> Tensor:
        """What is left of embeddings [..., columns, d] of these tables where they are served."""
        forms = [self.values[name] for name in tables]
        for stored in dict.fromkeys(forms):
            if stored != "fp32":
                mine = torch.tensor([each == stored for each in forms]).unsqueeze(-1)  # [columns, 1]
                found = torch.where(mine, rounded(found, stored), found)
        return found

    def together(self, asked: Sequence[tuple[Tensor, Tensor, tuple[str, ...]]]) -> list[Tensor]:
        """What `forward` gives for each of ids, offsets and tables, in one gather: the gradient of a gather is as large
        as all tables, so one is made, not one for each."""
        rows = [self.rows(ids, offsets) for ids, offsets, _ in asked]
        flat = torch.cat([each.flatten() for each in rows])
        found: Tensor = _Rows.apply(self.weight, flat)  # type: ignore[no-untyped-call]
        parts = torch.split(found, [each.numel() for each in rows])
        return [
            self._as_stored(part.view(*each.shape, self.dimension), tables)
            for part, each, (_, _, tables) in zip(parts, rows, asked, strict=True)
        ]


class _Rows(torch.autograd.Function):
    """weight[rows], the gradient of the padding zero. For 34,000 rows of 16 F.embedding takes 4.4 ms to make it,
    index_add_ 1.3 ms."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        return weight.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """[rows of the weight, d]"""
        (rows,) = ctx.saved_tensors
        whole = gradient.new_zeros(ctx.shape).index_add_(0, rows, gradient)
        whole[PADDING] = 0.0
        return whole, None


def places(schema: FeatureSchema) -> Iterator[tuple[str, FieldSpec]]:
    """Every embedded field with each place where it stands: user, context, ad, and the histories by their `key`."""
    for place, side in (("user", schema.user), ("context", schema.context), ("ad", schema.ad)):
        yield from ((place, field) for field in side.embedded_fields)
    for history in schema.histories:
        yield from ((key(history), field) for field in schema.embedded_of(history))


def key(history: HistorySpec) -> str:
    """The name of a history's modules; a bare one like `items` would be a method of nn.ModuleDict."""
    return f"history_{history.name}"


def table_of(field: FieldSpec) -> str:
    """The embedding table of an id field: its vocabulary, or its own."""
    return field.vocabulary or f"buckets:{field.name}"


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
        self.widths = [field.width for field in fields]
        self.tables = tuple(arena.table(place, field) for field in fields for _ in range(field.width))
        self.numbers = side.number_columns if only is None else 0
        self.dimension = len(fields) * arena.dimension + self.numbers
        self.register_buffer("offsets", arena.offsets(fields, place), persistent=False)

    def forward(self, arena: Arena, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """[..., dimension] of ids [..., columns] and numbers [..., number columns]."""
        ids = self.embedded(ids)
        return self.joined(arena(ids, self.offsets, self.tables), ids, numbers)

    def asked(self, ids: Tensor) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """What Arena.together is asked for this side's ids [..., columns]."""
        return self.embedded(ids), self.offsets, self.tables

    def embedded(self, ids: Tensor) -> Tensor:
        """The columns that have embeddings, of ids [..., columns]."""
        columns = sum(self.widths)
        return ids if ids.shape[-1] == columns else ids[..., :columns]

    def joined(self, embedded: Tensor, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """The same of embeddings [..., columns, d] that were looked up already, and of their ids."""
        ids = self.embedded(ids)
        if any(width > 1 for width in self.widths):
            pieces = []
            for width, values, id_group in zip(
                self.widths,
                torch.split(embedded, self.widths, dim=-2),
                torch.split(ids, self.widths, dim=-1),
                strict=True,
            ):
                if width > 1:
                    filled = (id_group != PADDING).sum(-1, keepdim=True).clamp(min=1)
                    pieces.append(values.sum(-2) / filled)
                else:
                    pieces.append(values.squeeze(-2))
            flat = torch.cat(pieces, dim=-1)
        else:
            flat = embedded.flatten(-2)
        return torch.cat([flat, numbers], dim=-1) if self.numbers and numbers is not None else flat


def linear(width: int, out: int) -> nn.Linear:
    """nn.Linear, of width 0 as well: a side without features leaves the bias alone, of which torch would warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")
        return nn.Linear(width, out)


class Mlp(nn.Module):
    """Linear, activation and dropout for each hidden layer, then one linear layer to `out` values."""

    def __init__(self, width: int, hidden: tuple[int, ...], out: int, activation: str, dropout: float) -> None:
        super().__init__()
        widths = [width, *hidden]
        self.layers = nn.ModuleList(linear(a, b) for a, b in pairwise(widths))
        self.activations = nn.ModuleList(Activation(activation, units) for units in hidden)
        self.dropout = nn.Dropout(dropout)
        self.out = linear(widths[-1], out)

    def forward(self, x: Tensor) -> Tensor:
        """[..., out] of [..., width]"""
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = self.dropout(activation(layer(x)))
        result: Tensor = self.out(x)
        return result

    def grouped(self, once: Tensor, each: Tensor, request: Tensor) -> Tensor:
        """[M, out]: `forward` of [once[request], each], with the first layer's work for `once` done once a request.

        once [B, Wo] of requests, each [M, We] of candidates, request int64[M]; Wo + We = width.
        """
        linears = [*self.layers, self.out]
        x = grouped(linears[0], once, each, request)
        for layer, activation in zip(linears[1:], self.activations, strict=True):
            x = layer(self.dropout(activation(x)))
        return x


def grouped(layer: nn.Module, once: Tensor, each: Tensor, request: Tensor) -> Tensor:
    """[M, out]: a linear layer, of low rank or not, of [once[request], each], as Mlp.grouped."""
    first = entry(layer)
    for_once, for_each = torch.split(first.weight, [once.shape[-1], each.shape[-1]], dim=1)
    return finish(layer, spread(F.linear(once, for_once, first.bias), request) + F.linear(each, for_each))


def spread(values: Tensor, request: Tensor) -> Tensor:
    """What belongs to requests [B, ...] for their candidates [M, ...]. The values of a single request stay [1, ...], to
    be broadcast: serving has no copies then."""
    return values if values.shape[0] == 1 else values[request]
