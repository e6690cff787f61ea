"""FM, factorisation machine (Rendle, ICDM 2010).

    logit = w_0 + Σ_i w_i x_i + Σ_{i<j} ⟨v_i, v_j⟩ x_i x_j        over the fields of user, context, histories and ad

Pairs are never listed: Σ_{i<j} ⟨e_i, e_j⟩ = ½ (‖Σ e_i‖² − Σ ‖e_i‖²), e_i = x_i v_i the vector of a field. Let s be the
sum of the request's fields and p their pairs, t and q those of the ad: all pairs together are p + ⟨s, t⟩ + q. So a
request needs s, p and its linear part once, an ad t, q and its own, and an FM is a two-tower network: query [s, 1], ad
vector [t, q + linear part of the ad].
"""

import torch
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.networks.config import FmConfig
from models.networks.fields import FieldVectors
from models.networks.first_order import FirstOrder
from models.networks.network import TwoTower


def sum_and_pairs(fields: Tensor) -> tuple[Tensor, Tensor]:
    """Fields [..., F, d] -> their sum [..., d], and the inner products of all pairs of two fields, summed, [...]."""
    total = fields.sum(-2)
    return total, 0.5 * (total.square().sum(-1) - fields.square().sum((-2, -1)))


class Fm(TwoTower):
    """Logit of each candidate; fine-ranks, pre-ranks and retrieves."""

    def __init__(self, config: FmConfig, schema: FeatureSchema) -> None:
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
        self.bias = nn.Parameter(torch.zeros(()))
        if config.position_bias:
            self.learn_positions()

    def query_of(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Query vectors [s, 1] and offsets w_0 + p + linear part; see TwoTower."""
        common = (user, user_numbers, context, context_numbers, histories)
        total, pairs = sum_and_pairs(self.vectors.of_request(self.arena, *common))
        linear = self.first_order.of_request(*common).sum(-1)
        return torch.cat([total, torch.ones_like(pairs).unsqueeze(-1)], dim=-1), self.bias + linear + pairs

    def ad_vectors(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """Ad vectors [M, d + 1], the last component the ad's own pairs and linear part."""
        total, pairs = sum_and_pairs(self.vectors.of_ads(self.arena, ads, ad_numbers))
        linear = self.first_order.of_ads(ads, ad_numbers).sum(-1)
        return torch.cat([total, (pairs + linear).unsqueeze(-1)], dim=-1)
