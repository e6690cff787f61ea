"""DQM, the pre-ranker and retrieval model: user, ad and scene domains each to one vector, scored by inner product.

    logit(u, s, a) = <u + s, a> + <u, s> + b_a + b

Candidates only meet the request in <u + s, a> + b_a, so ad vectors [a, b_a] are stored and a request needs one query
vector [u + s, 1] and one offset <u, s> + b.
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema
from models.config import DqmConfig
from models.data.batches import Batch
from models.layers import Arena, Mlp, SideEncoder, key


class Dqm(nn.Module):
    """Two towers and a scene vector."""

    def __init__(self, config: DqmConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.arena = Arena(schema, config.embedding, config.embedding_std)
        self.user = SideEncoder(self.arena, schema.user)
        self.context = SideEncoder(self.arena, schema.context)
        self.ad = SideEncoder(self.arena, schema.ad)
        self.behaviours = nn.ModuleDict(
            {key(h): SideEncoder(self.arena, schema.ad, h.fields) for h in schema.histories}
        )
        pooled = sum(len(h.fields) for h in schema.histories) * config.embedding
        self.user_tower = Mlp(
            self.user.dimension + pooled, config.hidden, config.dimension, config.activation, config.dropout
        )
        self.ad_tower = Mlp(self.ad.dimension, config.hidden, config.dimension + 1, config.activation, config.dropout)
        self.scene_tower = Mlp(self.context.dimension, (), config.dimension + 1, config.activation, 0.0)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        query, offset = self.query(batch)
        vectors = self.ad_vectors(batch.ads, batch.ad_numbers)
        return (query[batch.request] * vectors).sum(-1) + offset[batch.request]

    def query(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Query vectors [B, d + 1] and offsets [B] of the requests in a batch."""
        return self.query_of(batch.user, batch.user_numbers, batch.context, batch.context_numbers, batch.histories)

    def query_of(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The same from its parts, which is what the serving graph has."""
        parts = [self.user(self.arena, user, user_numbers)]
        for history in self.schema.histories:
            ids = histories[history.name]  # [B, L, H]
            filled = (ids[..., 0] != PADDING).unsqueeze(-1)  # [B, L, 1]
            behaviours = self.behaviours[key(history)](self.arena, ids)
            parts.append((behaviours * filled).sum(1) / filled.sum(1).clamp(min=1))
        u = self.user_tower(torch.cat(parts, dim=-1))
        scene = self.scene_tower(self.context(self.arena, context, context_numbers))
        s, bias = scene[..., :-1], scene[..., -1]
        return torch.cat([u + s, torch.ones_like(bias).unsqueeze(-1)], dim=-1), (u * s).sum(-1) + bias

    def ad_vectors(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """Ad vectors [M, d + 1], the last component the ad's bias."""
        vectors: Tensor = self.ad_tower(self.ad(self.arena, ads, ad_numbers))
        return vectors
