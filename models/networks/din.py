"""Deep Interest Network (Zhou et al., arXiv 1706.06978).

user, context, ad  -> embeddings of all fields, concatenated
each history       -> the candidate's interest vector, by the activation unit
everything         -> multi-layer perceptron -> logit (+ a bias for the position the ad was shown at)
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema
from models.data.batches import Batch
from models.networks.attention import ActivationUnit
from models.networks.config import DinConfig
from models.networks.layers import Mlp, key
from models.networks.network import Network


class Din(Network):
    """Logit of each candidate."""

    def __init__(self, config: DinConfig, schema: FeatureSchema) -> None:
        super().__init__(schema, config.embedding, config.embedding_std)
        self.config = config
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
        width = self.request_width + self.ad.dimension + self.history_width
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        mine = torch.cat([self.of_ads(batch), *self.interests(batch)], dim=-1)
        return self.biased(self.mlp.grouped(self.of_request(batch), mine, batch.request).squeeze(-1), batch)

    def interests(self, batch: Batch) -> list[Tensor]:
        """The interest vector [M, D] of each history."""
        found = []
        for history in self.schema.histories:
            ids = batch.histories[history.name]  # [B, L, H]
            encoder = self.behaviours[key(history)]
            columns = self.schema.history_columns(history)
            found.append(
                self.attention[key(history)](
                    encoder(self.arena, batch.ads[:, columns]),
                    encoder(self.arena, ids),
                    ids[..., 0] != PADDING,
                    batch.request,
                )
            )
        return found
