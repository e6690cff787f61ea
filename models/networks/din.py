"""Deep Interest Network (Zhou et al., arXiv 1706.06978).

user, context, ad  -> embeddings of all fields, concatenated
each history       -> the candidate's interest vector, by the activation unit
everything         -> multi-layer perceptron -> logit (+ a bias for the position the ad was shown at)
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING, FeatureSchema, HistorySpec
from models.data.batches import Batch
from models.networks.attention import ActivationUnit
from models.networks.config import DinConfig
from models.networks.encoder import SideEncoder, encoded
from models.networks.layers import Mlp, key
from models.networks.network import Network


class Din(Network):
    """Logit of each candidate."""

    def __init__(self, config: DinConfig, schema: FeatureSchema) -> None:
        super().__init__(
            schema,
            config.embedding,
            config.embedding_std,
            tables=config.tables,
            dropped=config.dropped_fields,
        )
        self.config = config
        self.attention = nn.ModuleDict(
            {
                key(h): ActivationUnit(
                    width,
                    config.attention_hidden,
                    config.attention_activation,
                    config.attention,
                )
                for h, width in zip(schema.histories, self.behaviour_widths, strict=True)
            }
        )
        width = self.request_width + self.ad.dimension + self.history_width
        self.mlp = Mlp(width, config.hidden, 1, config.activation, config.dropout)
        if config.position_bias:
            self.learn_positions()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        filled = {name: ids[..., 0] != PADDING for name, ids in batch.histories.items()}
        behaviours = {name: ids[filled[name]] for name, ids in batch.histories.items()}  # [F, H]
        histories = self.schema.histories
        compared = {h.name: batch.ads[:, self.schema.history_columns(h)] for h in histories}  # [M, H]
        user, context, ads, *others = encoded(
            self.arena,
            [
                (self.user, batch.user, batch.user_numbers),
                (self.context, batch.context, batch.context_numbers),
                (self.ad, batch.ads, batch.ad_numbers),
                *((self.encoder(h), ids[h.name], None) for h in histories for ids in (compared, behaviours)),
            ],
        )
        once, mine = [user, context], [ads]
        for h, q, k in zip(histories, others[::2], others[1::2], strict=True):
            mine.append(self.attention[key(h)](q, k, filled[h.name].sum(1), batch.request))
        logits = self.mlp.grouped(torch.cat(once, dim=-1), torch.cat(mine, dim=-1), batch.request)
        return self.biased(logits.squeeze(-1), batch)

    def encoder(self, history: HistorySpec) -> SideEncoder:
        """Of a behaviour, and of the candidate it is compared with."""
        found = self.behaviours[key(history)]
        assert isinstance(found, SideEncoder)
        return found
