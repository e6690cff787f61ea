"""Layers that all models share: the embedding arena and the multi-layer perceptron."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bundle.precision import Stored
from bundle.rounding import row_bytes
from bundle.schema import PADDING, UNKNOWN, FeatureSchema, FieldSpec, HistorySpec
from models.config import ConfigError
from models.networks.activations import Activation
from models.networks.config import TableConfig
from models.networks.low_rank import entry, finish
from models.networks.rounding import rounded
from models.networks.tables import CompressedTable


class Arena(nn.Module):
    """All embedding tables in one: a single gather serves all columns of a side.

    Table `t` (a vocabulary, or a bucketed field) has its own range of rows; fields of one vocabulary share it. Row 0 is
    the padding of all tables: always zero, never trained. The unknown of a table starts at zero too, the mean of its
    embeddings: where no training row is unknown it stays there, and an unknown ad gets an average score. Tables of
    fewer rows or columns stand beside the array (models/networks/tables.py); those of dropped fields alone are not
    there.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        dimension: int,
        std: float,
        *,
        shared: bool = True,
        tables: Mapping[str, TableConfig] | None = None,
        dropped: Sequence[str] = (),
    ) -> None:
        """`shared`: fields of one vocabulary share a table. Otherwise each field has its own in each of its places
        (user, context, ad, every history), as linear models need: what a value says of a candidate is not what it says
        among the behaviours. `tables`, `dropped`: as in EmbeddedConfig; ConfigError when they name what is not there.
        """
        super().__init__()
        self.dimension, self.shared, self.dropped = dimension, shared, frozenset(dropped)
        require_droppable(schema, dropped)
        configs = dict(tables or {})
        self.fields: dict[str, FieldSpec] = {}
        """By table: one of the fields whose ids its rows are."""
        self.starts: dict[str, int] = {}
        """By table of the array: id 1 has the row after this one."""
        rows = 1
        for place, field in places(schema):
            table = self.table(place, field)
            if table in self.fields or not self.reads(place, field):
                continue
            self.fields[table] = field
            if table not in configs or not configs[table].apart:
                self.starts[table] = rows - 1
                rows += field.size - 1
        if strange := sorted(configs.keys() - self.fields.keys()):
            raise ConfigError(f"model.tables: there is no table {strange[0]!r}, known: {', '.join(self.fields)}")
        self.values: dict[str, Stored] = {n: configs[n].values if n in configs else "fp32" for n in self.fields}
        """By table: what its rows are stored in where it is served. It gives what is left of them then."""
        self.weight = nn.Parameter(torch.empty(rows, dimension))
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[PADDING].zero_()
            self.weight[[start + UNKNOWN for start in self.starts.values()]] = 0.0
        self.tables = nn.ModuleDict(
            {
                module_name(name): CompressedTable(name, field.size, dimension, std, configs[name])
                for name, field in self.fields.items()
                if name not in self.starts
            }
        )

    def apart(self, table: str) -> CompressedTable | None:
        """The table where it stands beside the array."""
        name = module_name(table)
        found = self.tables[name] if name in self.tables else None  # noqa: SIM401  (a ModuleDict has no get)
        assert found is None or isinstance(found, CompressedTable)
        return found

    def compressed(self) -> list[CompressedTable]:
        """All that stand beside the array."""
        return [each for each in self.tables.values() if isinstance(each, CompressedTable)]

    def reads(self, place: str, field: FieldSpec) -> bool:
        """Whether the field is looked up in one of its places."""
        return full_name(place, field.name) not in self.dropped

    def table(self, place: str, field: FieldSpec) -> str:
        """The name of the table of a field in one of its places."""
        return table_of(field) if self.shared else f"{place}.{field.name}"

    def offsets(self, fields: list[FieldSpec], place: str = "") -> Tensor:
        """What to add to the ids of these fields' columns, int64[columns]; 0 where a field is not of the array.
        `place` matters where tables are not shared."""
        starts = [self.starts.get(self.table(place, field), 0) for field in fields for _ in range(field.width)]
        return torch.tensor(starts, dtype=torch.int64)

    def rows(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Arena rows of ids [..., columns]."""
        return torch.where(ids == PADDING, ids, ids + offsets)

    def stored_bytes(self) -> int:
        """What the tables take where they are served, each with a row of padding of its own."""
        own = sum(self.fields[name].size * row_bytes(self.values[name], self.dimension) for name in self.starts)
        return own + sum(each.stored_bytes() for each in self.compressed())

    def forward(self, ids: Tensor, offsets: Tensor, tables: tuple[str, ...]) -> Tensor:
        """Embeddings [..., columns, d] of ids [..., columns] of the array; `offsets` and `tables` are those of the
        columns."""
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


def full_name(place: str, field: str) -> str:
    """SIDE.FIELD, as EmbeddedConfig.dropped_fields names a field; SIDE user, context, ad or the name of a history."""
    return f"{place.removeprefix('history_')}.{field}"


def field_names(schema: FeatureSchema) -> list[str]:
    """SIDE.FIELD of every embedded field."""
    return [full_name(place, field.name) for place, field in places(schema)]


def require_droppable(schema: FeatureSchema, dropped: Sequence[str]) -> None:
    """ConfigError unless every name is that of a field, and the ad and each history keep one."""
    if not dropped:
        return
    known = field_names(schema)
    if strange := [name for name in dropped if name not in known]:
        raise ConfigError(f"model.dropped_fields: there is no field {strange[0]!r}, known: {', '.join(known)}")
    for side in ["ad", *(history.name for history in schema.histories)]:
        own = [name for name in known if name.partition(".")[0] == side]
        if own and all(name in dropped for name in own):
            raise ConfigError(f"model.dropped_fields: nothing would be left of {side!r}, at least one field is needed")


def module_name(table: str) -> str:
    """The name of a table's module, which must not hold a dot."""
    return f"table_{table.replace('.', '%2E')}"


def table_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of all embedding tables."""
    return [each.weight for each in network.modules() if isinstance(each, Arena | CompressedTable)]


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
