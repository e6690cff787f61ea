"""PNN, product-based neural network (Qu et al., arXiv 1611.00144): products of fields enter the first layer.

    l_1 = activation(W [f_1, …, f_F] + l_p + b),   logit = the other layers on l_1   (+ bias of the position)

    inner   l_p^n = Σ_i Σ_j θ_i^n θ_j^n ⟨f_i, f_j⟩ = ‖Σ_i θ_i^n f_i‖²       n a unit; IPNN with weights θ^n θ^nᵀ
    outer   l_p^n = W^n · Σ_i Σ_j f_i f_jᵀ = W^n · f fᵀ, f = Σ_i f_i        · the sum of products; OPNN, superposed

Neither lists a pair. The fields are those of the request and of the ad, so both products are a sum of three: among the
request's fields, once a request; between request and ad; among the ad's fields.

Letters: B requests, M candidates, R and A fields of each, d dimension, h units of the first layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.activations import Activation
from models.networks.config import PnnConfig
from models.networks.fields import FieldVectors
from models.networks.layers import Mlp, grouped, linear, spread
from models.networks.network import Network


class InnerProducts(nn.Module):
    """l_p of the inner products: F·h weights in the place of F²·h, and no pair is listed."""

    def __init__(self, of_request: int, of_ad: int, units: int) -> None:
        super().__init__()
        self.of_request, self.of_ad = of_request, of_ad
        self.theta = nn.Parameter(torch.empty(units, of_request + of_ad))
        nn.init.normal_(self.theta, std=(of_request + of_ad) ** -0.5)

    def forward(self, request_fields: Tensor, ad_fields: Tensor, request: Tensor) -> Tensor:
        """[M, h] of request_fields [B, R, d], ad_fields [M, A, d] and request int64[M]."""
        for_request, for_ad = torch.split(self.theta, [self.of_request, self.of_ad], dim=1)
        mine = for_request @ request_fields  # [B, h, d]
        its = for_ad @ ad_fields  # [M, h, d]
        # ‖mine + its‖² = ‖mine‖² + ⟨its, its + 2 mine⟩
        return spread(mine.square().sum(-1), request) + (its * (its + 2 * spread(mine, request))).sum(-1)


class OuterProducts(nn.Module):
    """l_p of the outer product of the fields' sum with itself."""

    def __init__(self, dimension: int, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(units, dimension, dimension))
        nn.init.normal_(self.weight, std=1 / dimension)

    def forward(self, request_fields: Tensor, ad_fields: Tensor, request: Tensor) -> Tensor:
        """[M, h] of request_fields [B, R, d], ad_fields [M, A, d] and request int64[M]."""
        weight = self.weight.flatten(1)
        mine, its = request_fields.sum(-2), ad_fields.sum(-2)  # [B, d], [M, d]
        once = F.linear(outer(mine, mine).flatten(-2), weight)
        mine = spread(mine, request)
        # (mine + its)(mine + its)ᵀ − mine mineᵀ
        each = outer(its, mine + its) + outer(mine, its)
        return spread(once, request) + F.linear(each.flatten(-2), weight)


def outer(a: Tensor, b: Tensor) -> Tensor:
    """a bᵀ of the last axes: [..., d], [..., d] -> [..., d, d]."""
    return a.unsqueeze(-1) * b.unsqueeze(-2)


class Pnn(Network):
    """Logit of each candidate."""

    def __init__(self, config: PnnConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        self.vectors = FieldVectors(schema, self.arena, config.embedding_std)
        r, a, h = self.vectors.of_one_request, self.vectors.of_one_ad, config.hidden[0]
        self.fields = linear((r + a) * config.embedding, h)
        self.products = InnerProducts(r, a, h) if config.products == "inner" else OuterProducts(config.embedding, h)
        self.activation = Activation(config.activation, h)
        self.dropout = nn.Dropout(config.dropout)
        self.rest = Mlp(h, config.hidden[1:], 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        request, ads = self.vectors.of_batch(self.arena, batch)  # [B, R, d], [M, A, d]
        x = grouped(self.fields, request.flatten(-2), ads.flatten(-2), batch.request)
        x = self.activation(x + self.products(request, ads, batch.request))
        return self.biased(self.rest(self.dropout(x)).squeeze(-1), batch)
