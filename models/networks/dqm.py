"""DQM, the pre-ranker and retrieval model: user, ad and scene domains each to one vector, scored by inner product.

    logit(u, s, a) = <u + s, a> + <u, s> + b_a + b

Candidates only meet the request in <u + s, a> + b_a, so ad vectors [a, b_a] are stored and a request needs one query
vector [u + s, 1] and one offset <u, s> + b.
"""

import torch
from torch import Tensor

from bundle.schema import FeatureSchema
from models.networks.config import DqmConfig
from models.networks.layers import Mlp
from models.networks.network import TwoTower


class Dqm(TwoTower):
    """Two towers and a scene vector."""

    def __init__(self, config: DqmConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        self.user_tower = Mlp(
            self.user.dimension + self.history_width,
            config.hidden,
            config.dimension,
            config.activation,
            config.dropout,
        )
        self.ad_tower = Mlp(self.ad.dimension, config.hidden, config.dimension + 1, config.activation, config.dropout)
        self.scene_tower = Mlp(self.context.dimension, (), config.dimension + 1, config.activation, 0.0)
        if config.position_bias:
            self.learn_positions()

    def query_of(
        self, user: Tensor, user_numbers: Tensor, context: Tensor, context_numbers: Tensor, histories: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Query vectors [u + s, 1] and offsets; see TwoTower."""
        mine = [self.user(self.arena, user, user_numbers), *self.of_histories(histories)]
        u = self.user_tower(torch.cat(mine, dim=-1))
        scene = self.scene_tower(self.context(self.arena, context, context_numbers))
        s, bias = scene[..., :-1], scene[..., -1]
        return torch.cat([u + s, torch.ones_like(bias).unsqueeze(-1)], dim=-1), (u * s).sum(-1) + bias

    def ad_vectors(self, ads: Tensor, ad_numbers: Tensor) -> Tensor:
        """Ad vectors [M, d + 1], the last component the ad's bias."""
        vectors: Tensor = self.ad_tower(self.ad(self.arena, ads, ad_numbers))
        return vectors
