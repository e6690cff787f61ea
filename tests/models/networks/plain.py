"""The fields of one impression, looked up one by one: the second formulation that networks over fields are held to."""

import torch
from torch import Tensor

from models.data.batches import Batch
from models.networks.fields import FieldVectors
from models.networks.layers import Arena
from tests.models.world import SCHEMA


def plain_fields(vectors: FieldVectors, arena: Arena, batch: Batch, candidate: int) -> list[Tensor]:
    """The vectors [d] of all fields of a candidate of tests.models.world: of its request first, then its own."""

    def row(place: str, name: str, value: Tensor) -> Tensor:
        side = getattr(SCHEMA, place) if place in ("user", "context") else SCHEMA.ad
        field = next(each for each in side.fields if each.name == name)
        return arena.weight[arena.starts[arena.table(place, field)] + int(value)]

    def mean(rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).mean(0) if rows else torch.zeros(arena.dimension)

    def tags(place: str, values: Tensor) -> Tensor:
        return mean([row(place, "tags", value) for value in values if value != 0])

    request = int(batch.request[candidate])
    behaviours = [each for each in batch.histories["clicks"][request] if each[0] != 0]
    ad = batch.ads[candidate]
    return [
        row("user", "city", batch.user[request, 0]),
        batch.user_numbers[request, 0] * vectors.numbers["user"][0],
        row("context", "tab", batch.context[request, 0]),
        mean([row("history_clicks", "ad", each[0]) for each in behaviours]),
        mean([tags("history_clicks", each[1:]) for each in behaviours]),
        row("ad", "ad", ad[0]),
        tags("ad", ad[1:4]),
        row("ad", "price", ad[4]),
        batch.ad_numbers[candidate, 0] * vectors.numbers["ad"][0],
    ]
