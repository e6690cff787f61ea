"""Crosses of two fields: one weight for each pair of values, hashed where there are too many pairs.

    pair = a · size_b + b                                   no two pairs of ids share it
    row  = pair                                             where the table has a row for each
           ((pair mod p) · 48271 mod p) mod rows            else, p = 2³¹ − 1

which is Carter and Wegman's universal hashing (JCSS 18, 1979) with the multiplier of MINSTD (Park, Miller and
Stockmeyer, CACM 36, 1993). Ids are below 2³¹, so no product leaves int64, and torch and ONNX compute the same rows.

Fields of several values, and of histories, give the mean over all pairs that are there.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema, Side
from models.config import ConfigError
from models.data.batches import Batch
from models.networks.layers import spread

PRIME = 2**31 - 1
MULTIPLIER = 48271


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch has the ids of a field."""

    source: str
    """user, context, ad, or the name of a history."""
    columns: list[int]
    size: int

    def ids(self, batch: Batch) -> Tensor:
        """int64[B, values], of the ad [M, values]; those of a history are the values of all its behaviours."""
        sides = {"user": batch.user, "context": batch.context, "ad": batch.ads}
        if self.source in sides:
            return sides[self.source][:, self.columns]
        return batch.histories[self.source][..., self.columns].flatten(1)


def place_of(schema: FeatureSchema, name: str) -> Place:
    """Where SIDE.FIELD is; SIDE is user, context, ad or a history's name. ConfigError when there is no such field."""
    source, _, field_name = name.partition(".")
    side = {"user": schema.user, "context": schema.context, "ad": schema.ad}.get(source)
    history = next((h for h in schema.histories if side is None and h.name == source and field_name in h.fields), None)
    for field, columns in (schema.ad if history else side or Side()).slices():
        if field.name == field_name:
            taken = list(range(columns.start, columns.stop))
            if history is not None:
                taken = [schema.history_columns(history).index(column) for column in taken]
            return Place(source, taken, field.size)
    raise ConfigError(
        f"model.crosses: there is no field {name!r} with ids; SIDE.FIELD is needed, "
        f"SIDE one of {', '.join(['user', 'context', 'ad', *(h.name for h in schema.histories)])}"
    )


class Crosses(nn.Module):
    """Σ of the weights of all crosses, each in its own range of one table. Weights start at 0."""

    continuing = "by id"
    """Training cannot go on from another vocabulary: a pair's row depends on the ids (models/continuing.py)."""

    def __init__(self, schema: FeatureSchema, pairs: tuple[tuple[str, str], ...], rows: int) -> None:
        """`rows`: at most so many for a cross. ConfigError when a field is not there."""
        super().__init__()
        self.places = [(place_of(schema, one), place_of(schema, other)) for one, other in pairs]
        self.rows = [min(rows, one.size * other.size) for one, other in self.places]
        self.weight = nn.Parameter(torch.zeros(sum(self.rows)))

    def ids(self, index: int, one: Tensor, other: Tensor) -> Tensor:
        """Rows of the table, int64[..., a, b], of all pairs of ids [..., a] and [..., b] in cross `index`."""
        size = self.places[index][1].size
        pair = one.unsqueeze(-1) * size + other.unsqueeze(-2)
        if self.rows[index] < self.places[index][0].size * size:
            pair = (pair % PRIME) * MULTIPLIER % PRIME % self.rows[index]
        return pair + sum(self.rows[:index])

    def forward(self, batch: Batch) -> Tensor:
        """[M], or [1] when no cross has to do with the ad and there is a single request."""
        total = torch.zeros(1)
        for index, places in enumerate(self.places):
            one, other = (place.ids(batch) for place in places)
            with_ad = [place.source == "ad" for place in places]
            if with_ad == [True, False]:
                other = spread(other, batch.request)
            if with_ad == [False, True]:
                one = spread(one, batch.request)
            real = (one != PADDING).unsqueeze(-1) & (other != PADDING).unsqueeze(-2)  # [..., a, b]
            weights = F.embedding(self.ids(index, one, other), self.weight.unsqueeze(-1)).squeeze(-1)
            mean = (weights * real).sum((-2, -1)) / real.sum((-2, -1)).clamp(min=1)
            total = total + (mean if any(with_ad) else spread(mean, batch.request))
        return total
