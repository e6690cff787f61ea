"""Layers that all models share: the embedding arena, Dice, and the multi-layer perceptron."""

import warnings
from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import PADDING, UNKNOWN, FeatureSchema, FieldSpec, HistorySpec, Side


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
        """What the tables take where they are served."""
        return self.weight.numel() * self.weight.element_size()

    def forward(self, ids: Tensor, offsets: Tensor) -> Tensor:
        """Embeddings [..., columns, d] of ids [..., columns]."""
        return F.embedding(self.rows(ids, offsets), self.weight, padding_idx=PADDING)


def places(schema: FeatureSchema) -> Iterator[tuple[str, FieldSpec]]:
    """Every id field with each place where it stands: user, context, ad, and the histories by their `key`."""
    for place, side in (("user", schema.user), ("context", schema.context), ("ad", schema.ad)):
        yield from ((place, field) for field in side.id_fields)
    fields = {field.name: field for field in schema.ad.id_fields}
    for history in schema.histories:
        yield from ((key(history), fields[name]) for name in history.fields)


def key(history: HistorySpec) -> str:
    """The name of a history's modules; a bare one like `items` would be a method of nn.ModuleDict."""
    return f"history_{history.name}"


def table_of(field: FieldSpec) -> str:
    """The embedding table of an id field: its vocabulary, or its own."""
    return field.vocabulary or f"buckets:{field.name}"


class SideEncoder(nn.Module):
    """The fields of one side as one vector: embeddings, multi-valued ones averaged, then numbers.

    `only`: the fields of a behaviour, in the order in which its ids stand (FeatureSchema.history_columns); no numbers.
    """

    offsets: Tensor

    def __init__(self, arena: Arena, side: Side, only: tuple[str, ...] | None = None, place: str = "") -> None:
        super().__init__()
        by_name = {field.name: field for field in side.id_fields}
        fields = list(side.id_fields) if only is None else [by_name[name] for name in only]
        self.widths = [field.width for field in fields]
        self.numbers = side.number_columns if only is None else 0
        self.dimension = len(fields) * arena.dimension + self.numbers
        self.register_buffer("offsets", arena.offsets(fields, place), persistent=False)

    def forward(self, arena: Arena, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """[..., dimension] of ids [..., columns] and numbers [..., number columns]."""
        return self.joined(arena(ids, self.offsets), ids, numbers)

    def joined(self, embedded: Tensor, ids: Tensor, numbers: Tensor | None = None) -> Tensor:
        """The same of embeddings [..., columns, d] that were looked up already."""
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


class Dice(nn.Module):
    """Data-adaptive activation: p·x + (1 - p)·α·x with p = σ((x - E[x]) / sqrt(Var[x] + ε)).

    E and Var are of the batch in training and running averages otherwise, per unit, as α is (arXiv 1706.06978, eq. 3).
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, units: int, momentum: float = 0.01, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(units))
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("variance", torch.ones(units))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., units]; `mask` [...] (1 where real) keeps padding out of the statistics."""
        if self.training and (mask is None or bool(mask.any())):
            mean, variance = _moments(x, mask)
            with torch.no_grad():
                # A plain mean over the first 1/momentum batches: after one short epoch a moving average from (0, 1)
                # would still hold a share of where it started.
                self.batches += 1
                rate = torch.clamp(1 / self.batches, min=self.momentum)
                self.mean.lerp_(mean.detach(), rate)
                self.variance.lerp_(variance.detach(), rate)
        else:
            mean, variance = self.mean, self.variance
        p = torch.sigmoid((x - mean) * torch.rsqrt(variance + self.epsilon))
        return x * (self.alpha + p * (1 - self.alpha))


def _moments(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each unit over all (real) positions."""
    flat = x.flatten(0, -2)
    if mask is None:
        variance, mean = torch.var_mean(flat, dim=0, correction=0)
        return mean, variance
    weight = mask.flatten().to(x.dtype).unsqueeze(0)
    weight = weight / weight.sum().clamp(min=1)
    mean = (weight @ flat).squeeze(0)
    return mean, (weight @ (flat - mean).square()).squeeze(0)


class Activation(nn.Module):
    """Dice, PReLU (one slope a unit), sigmoid or ReLU behind one interface."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.kind = kind
        self.dice = Dice(units) if kind == "dice" else None
        self.slope = nn.Parameter(torch.full((units,), 0.25)) if kind == "prelu" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., units]"""
        if self.dice is not None:
            activated: Tensor = self.dice(x, mask)
            return activated
        if self.slope is not None:
            return torch.where(x > 0, x, x * self.slope)
        return torch.sigmoid(x) if self.kind == "sigmoid" else torch.relu(x)


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
        first = linears[0]
        assert isinstance(first, nn.Linear)
        for_once, for_each = torch.split(first.weight, [once.shape[-1], each.shape[-1]], dim=1)
        x = spread(F.linear(once, for_once, first.bias), request) + F.linear(each, for_each)
        for layer, activation in zip(linears[1:], self.activations, strict=True):
            x = layer(self.dropout(activation(x)))
        return x


def spread(values: Tensor, request: Tensor) -> Tensor:
    """What belongs to requests [B, ...] for their candidates [M, ...]. The values of a single request stay [1, ...], to
    be broadcast: serving has no copies then."""
    return values if values.shape[0] == 1 else values[request]
