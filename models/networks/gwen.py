"""GwEN, group-wise embedding network: the base model of the DIN paper (arXiv 1706.06978, section 4.2).

user, context, ad  -> embeddings of all fields, concatenated
each history       -> the mean of its behaviours, the same for all candidates of a request
everything         -> multi-layer perceptron -> logit
"""

import torch
from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import GwenConfig
from models.networks.layers import Mlp
from models.networks.network import Network


class Gwen(Network):
    """Logit of each candidate."""

    def __init__(self, config: GwenConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        width = self.request_width + self.history_width + self.ad.dimension
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        once = torch.cat([self.of_request(batch), *self.of_histories(batch.histories)], dim=-1)
        return self.biased(self.mlp.grouped(once, self.of_ads(batch), batch.request).squeeze(-1), batch)
