"""DeepFM (Guo et al., arXiv 1703.04247): a factorisation machine and a deep network over the same embeddings.

    logit = Σ_i w_i x_i + Σ_{i<j} ⟨e_i, e_j⟩ + network [e_1, …, e_F]     (+ bias of the position)

e_i is the vector of a field of user, context, histories or ad (models/networks/fields.py); w_0 is the network's bias.
Sum, pairs and first layer of the request's fields are computed once a request, as in fm.py and gwen.py.
"""

from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import DeepFmConfig
from models.networks.fields import FieldVectors
from models.networks.first_order import FirstOrder
from models.networks.fm import sum_and_pairs
from models.networks.layers import Mlp, spread
from models.networks.network import Network


class DeepFm(Network):
    """Logit of each candidate."""

    def __init__(self, config: DeepFmConfig, schema: FeatureSchema) -> None:
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
        width = (self.vectors.of_one_request + self.vectors.of_one_ad) * config.embedding
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        request, ads = self.vectors.of_batch(self.arena, batch)  # [B, R, d], [M, A, d]
        s, of_request = sum_and_pairs(request)
        t, of_ads = sum_and_pairs(ads)
        pairs = spread(of_request, batch.request) + (spread(s, batch.request) * t).sum(-1) + of_ads
        deep = self.mlp.grouped(request.flatten(-2), ads.flatten(-2), batch.request).squeeze(-1)
        return self.biased(self.first_order(batch) + pairs + deep, batch)
