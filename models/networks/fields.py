"""Each field as one vector: what factorisation machines, product networks and their kin work on.

id                  -> its embedding; the mean of several
number x            -> x·v, v learnt (Rendle 2010: x_i v_i)
field of a history  -> the mean over the behaviours, zeros where there is none

Letters: B requests, M candidates, R fields of a request (user, context, histories), A fields of an ad, d dimension.
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema
from models.data.batches import Batch
from models.networks.encoder import SideEncoder
from models.networks.layers import Arena, key


class FieldVectors(nn.Module):
    """The fields of requests, [B, R, d], and of candidates, [M, A, d]. The arena is given with each call: it belongs to
    the network."""

    def __init__(self, schema: FeatureSchema, arena: Arena, std: float) -> None:
        """`std`: spread of the initial vectors of numbers."""
        super().__init__()
        self.schema, self.dimension = schema, arena.dimension
        sides = {"user": schema.user, "context": schema.context, "ad": schema.ad}
        self.sides = nn.ModuleDict({name: SideEncoder(arena, side, place=name) for name, side in sides.items()})
        self.behaviours = nn.ModuleDict(
            {key(h): SideEncoder(arena, schema.ad, h.fields, place=key(h)) for h in schema.histories}
        )
        self.numbers = nn.ParameterDict(
            {
                name: torch.randn(side.number_columns, arena.dimension) * std
                for name, side in sides.items()
                if side.number_columns
            }
        )
        encoders = {**self.sides, **self.behaviours}
        counts = {n: len(each.columns) + each.numbers for n, each in encoders.items() if isinstance(each, SideEncoder)}
        self.of_one_ad = counts.pop("ad")
        self.of_one_request = sum(counts.values())

    def of_request(
        self,
        arena: Arena,
        user: Tensor,
        user_numbers: Tensor,
        context: Tensor,
        context_numbers: Tensor,
        histories: dict[str, Tensor],
    ) -> Tensor:
        """[B, R, d] of the parts of a batch, R = `of_one_request`."""
        parts = [
            self._side(arena, "user", user, user_numbers),
            self._side(arena, "context", context, context_numbers),
        ]
        for history in self.schema.histories:
            ids = histories[history.name]  # [B, L, H]
            filled = (ids[..., 0] != PADDING).unsqueeze(-1)  # [B, L, 1]
            encoder = self.behaviours[key(history)]
            assert isinstance(encoder, SideEncoder)
            behaviours = encoder(arena, ids)  # [B, L, fields · d]
            mean = (behaviours * filled).sum(1) / filled.sum(1).clamp(min=1)
            parts.append(mean.unflatten(-1, (len(encoder.columns), self.dimension)))
        return torch.cat(parts, dim=-2)

    def of_ads(self, arena: Arena, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """[M, A, d] of candidates, A = `of_one_ad`."""
        return self._side(arena, "ad", ads, ad_numbers)

    def of_batch(self, arena: Arena, batch: Batch) -> tuple[Tensor, Tensor]:
        """[B, R, d] and [M, A, d]."""
        common = (batch.user, batch.user_numbers, batch.context, batch.context_numbers, batch.histories)
        return self.of_request(arena, *common), self.of_ads(arena, batch.ads, batch.ad_numbers)

    def _side(self, arena: Arena, name: str, ids: Tensor, numbers: Tensor) -> Tensor:
        """[..., fields, d]: those with ids first, then numbers."""
        encoder = self.sides[name]
        assert isinstance(encoder, SideEncoder)
        vectors: Tensor = encoder(arena, ids).unflatten(-1, (len(encoder.columns), self.dimension))
        if name not in self.numbers:
            return vectors
        return torch.cat([vectors, numbers.unsqueeze(-1) * self.numbers[name]], dim=-2)
