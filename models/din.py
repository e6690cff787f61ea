"""Deep Interest Network (Zhou et al., arXiv 1706.06978).

user, context, ad  -> embeddings of all fields, concatenated
each history       -> the candidate's interest vector, by the activation unit
everything         -> multi-layer perceptron -> logit (+ a bias for the position the ad was shown at)
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema
from models.attention import ActivationUnit
from models.config import DinConfig
from models.data.batches import Batch
from models.layers import Arena, Mlp, SideEncoder, key

POSITIONS = 100
"""Positions with a bias of their own; later ones share the last."""


class Din(nn.Module):
    """Logit of each candidate."""

    def __init__(self, config: DinConfig, schema: FeatureSchema) -> None:
        super().__init__()
        self.config, self.schema = config, schema
        self.arena = Arena(schema, config.embedding, config.embedding_std)
        self.user = SideEncoder(self.arena, schema.user)
        self.context = SideEncoder(self.arena, schema.context)
        self.ad = SideEncoder(self.arena, schema.ad)
        self.behaviours = nn.ModuleDict(
            {key(h): SideEncoder(self.arena, schema.ad, h.fields) for h in schema.histories}
        )
        self.attention = nn.ModuleDict(
            {
                key(h): ActivationUnit(
                    len(h.fields) * config.embedding,
                    config.attention_hidden,
                    config.attention_activation,
                    config.attention,
                )
                for h in schema.histories
            }
        )
        interest = sum(len(h.fields) for h in schema.histories) * config.embedding
        width = self.user.dimension + self.context.dimension + self.ad.dimension + interest
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        self.position = nn.Embedding(POSITIONS, 1) if config.position_bias else None
        if self.position is not None:
            nn.init.zeros_(self.position.weight)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        common = torch.cat(
            [
                self.user(self.arena, batch.user, batch.user_numbers),
                self.context(self.arena, batch.context, batch.context_numbers),
            ],
            dim=-1,
        )  # [B, Du + Dc]
        parts = [common[batch.request], self.ad(self.arena, batch.ads, batch.ad_numbers)]
        for history in self.schema.histories:
            ids = batch.histories[history.name]  # [B, L, H]
            encoder = self.behaviours[key(history)]
            columns = self.schema.history_columns(history)
            parts.append(
                self.attention[key(history)](
                    encoder(self.arena, batch.ads[:, columns]),
                    encoder(self.arena, ids),
                    ids[..., 0] != PADDING,
                    batch.request,
                )
            )
        logits: Tensor = self.mlp(torch.cat(parts, dim=-1)).squeeze(-1)
        if self.position is not None:
            logits = logits + self.position(batch.positions.clamp(max=POSITIONS - 1)).squeeze(-1)
        return logits
