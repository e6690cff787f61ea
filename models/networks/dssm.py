"""DSSM, deep structured semantic model (Huang et al., CIKM 2013): two towers into one space, compared by their cosine.

    u = request tower [user, context, mean of each history's behaviours]      a, b_a = ad tower [ad]
    logit = s·(⟨u/‖u‖, a/‖a‖⟩ + b_a) + o          b_a only with `ad_bias`

The paper takes a softmax over s·cosine of one clicked and some other documents, s (its γ) set on held-out data. Here
the labels are clicks and non-clicks of shown ads, so the loss is the cross-entropy of each, s is learnt, and an offset
o and a bias of each ad are added, because a cosine alone cannot say how often ads are clicked.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.networks.config import DssmConfig
from models.networks.layers import Mlp
from models.networks.network import TwoTower


class Dssm(TwoTower):
    """Two towers whose vectors have length 1."""

    def __init__(self, config: DssmConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        width, last = self.request_width + self.history_width, config.dimension + config.ad_bias
        self.request_tower = Mlp(width, config.hidden, config.dimension, config.activation, config.dropout)
        self.ad_tower = Mlp(self.ad.dimension, config.hidden, last, config.activation, config.dropout)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        self.offset = nn.Parameter(torch.zeros(()))
        if config.position_bias:
            self.learn_positions()

    def query_of(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Query vectors s·[u/‖u‖, 1] and offsets o; see TwoTower. Without the ads' bias the 1 is not there."""
        request = [
            self.user(self.arena, user, user_numbers),
            self.context(self.arena, context, context_numbers),
            *self.of_histories(histories),
        ]
        u = F.normalize(self.request_tower(torch.cat(request, dim=-1)), dim=-1)
        if self.config.ad_bias:
            u = torch.cat([u, torch.ones_like(u[:, :1])], dim=-1)
        return u * self.log_scale.exp(), self.offset + torch.zeros_like(u[:, 0])

    def ad_vectors(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """Ad vectors [a/‖a‖, b_a], [M, d + 1], or [M, d] without biases.

        The bias is in units of the cosine: vectors are stored in bytes with one scale an ad, and the bias of a logit,
        several times larger than any component, would make the steps of all others coarse.
        """
        a = self.ad_tower(self.ad(self.arena, ads, ad_numbers))
        if not self.config.ad_bias:
            return F.normalize(a, dim=-1)
        return torch.cat([F.normalize(a[:, :-1], dim=-1), a[:, -1:]], dim=-1)
