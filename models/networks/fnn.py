"""FNN, factorisation-machine supported neural network (Zhang, Du and Wang, arXiv 1601.02376).

    z_i = [w_i x_i, v_i x_i]          a field's weight and vector, as a factorisation machine has them
    logit = network [z_1, …, z_F]     (+ bias of the position)

Weights and vectors are those of an FM that was trained first (`pretraining: {fm_epochs: 1}`, models/pretraining.py),
and go on learning. Without pretraining this is a network over embeddings as GwEN is, with one more component a field.
"""

import torch
from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import FnnConfig
from models.networks.fields import FieldVectors
from models.networks.first_order import FirstOrder
from models.networks.layers import Mlp
from models.networks.network import Network


class Fnn(Network):
    """Logit of each candidate. Its parameters have the names that they have in Fm."""

    def __init__(self, config: FnnConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        self.vectors = FieldVectors(schema, self.arena, config.embedding_std)
        self.first_order = FirstOrder(schema, config.dropped_fields)
        width = (self.vectors.of_one_request + self.vectors.of_one_ad) * (1 + config.embedding)
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        weights = self.first_order.of_batch(batch)  # [B, R], [M, A]
        vectors = self.vectors.of_batch(self.arena, batch)  # [B, R, d], [M, A, d]
        once, each = (torch.cat([w, v.flatten(-2)], dim=-1) for w, v in zip(weights, vectors, strict=True))
        return self.biased(self.mlp.grouped(once, each, batch.request).squeeze(-1), batch)
