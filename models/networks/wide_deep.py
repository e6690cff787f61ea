"""Wide & Deep (Cheng et al., arXiv 1606.07792): a linear model over ids and their crosses, and a deep network, jointly.

    logit = Σ_i w_i x_i + Σ_c mean weight of cross c + network [user, context, mean of each history, ad]
            (+ bias of the position)

The deep part is GwEN. A cross is a pair of fields, as `context.tab` with `ad.tag`, or, after the paper's installed and
shown app, `clicks.tag` with `ad.tag` (models/networks/crosses.py). All parts share one loss and one optimiser.
"""

import torch
from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import WideDeepConfig
from models.networks.crosses import Crosses
from models.networks.first_order import FirstOrder
from models.networks.layers import Mlp
from models.networks.network import Network


class WideDeep(Network):
    """Logit of each candidate."""

    def __init__(self, config: WideDeepConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        self.first_order = FirstOrder(schema, config.dropped_fields)
        self.crosses = Crosses(schema, config.crosses, config.cross_rows)
        width = self.request_width + self.history_width + self.ad.dimension
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        once = torch.cat([self.of_request(batch), *self.of_histories(batch.histories)], dim=-1)
        deep = self.mlp.grouped(once, self.of_ads(batch), batch.request).squeeze(-1)
        return self.biased(self.first_order(batch) + self.crosses(batch) + deep, batch)
