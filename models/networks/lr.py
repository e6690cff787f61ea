"""LR: sparse logistic regression over ids and numbers.

logit = b + Σ over the features of their weights        (models/networks/linear.py)
"""

from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import LrConfig
from models.networks.layers import spread
from models.networks.linear import LinearNetwork


class Lr(LinearNetwork):
    """Logit of each candidate. All weights start at zero."""

    def __init__(self, config: LrConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema, out=1, std=0.0)
        self.config = config

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        once, each = self.sums(batch)
        return self.biased((spread(once, batch.request) + each + self.intercept).squeeze(-1), batch)
