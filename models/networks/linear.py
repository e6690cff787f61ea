"""Linear functions of sparse features, which LR (lr.py) and MLR (mlr.py) are made of.

    z = b + Σ over id fields of w[value] + Σ over histories of its behaviours' mean weight + Σ over numbers of w·x

They are the vectors of fields (fields.py), summed: weights of ids are embeddings whose dimension is the number of
functions, in an arena that is not shared. A field of several values has the mean of their weights; what depends on the
request alone is summed once a request. first_order.py is the same beside other networks, of one function.
"""

import torch
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.networks.cascade import Cascade
from models.networks.config import LinearConfig
from models.networks.fields import FieldVectors
from models.networks.network import Network
from models.networks.sparsity import nonzero, shrink_


class LinearNetwork(Network):
    """A network of `out` linear functions and nothing else that is large: sparse by a proximal step, with the log-odds
    of a first model over statistics if it is a cascade. Without histories its own schema has none, so it has no weights
    for behaviours and its graph does not read them."""

    def __init__(self, config: LinearConfig, schema: FeatureSchema, out: int, std: float) -> None:
        if not config.histories:
            schema = schema.model_copy(update={"histories": ()})
        super().__init__(schema, out, std, shared=False)
        self.vectors = FieldVectors(schema, self.arena, std)
        self.sparsity = config
        self.cascade = Cascade(schema) if config.cascade else None
        self.of_statistic = nn.Parameter(torch.randn(1, out) * std) if config.cascade else None
        self.intercept = nn.Parameter(torch.zeros(out))
        if config.position_bias:
            self.learn_positions()

    def sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of what belongs to the request [B, out] and of the candidates [M, out]; without the intercepts."""
        request, ads = self.vectors.of_batch(self.arena, batch)  # [B, R, out], [M, A, out]
        once, each = request.sum(-2), ads.sum(-2)
        if self.cascade is not None and self.of_statistic is not None:
            each = each + self.cascade(batch).unsqueeze(-1) * self.of_statistic
        return once, each

    def weights(self) -> list[Tensor]:
        """What regularisation is about, [features, out] each: all weights but the intercepts and the position's."""
        statistic = [] if self.of_statistic is None else [self.of_statistic]
        return [self.arena.weight, *self.vectors.numbers.values(), *statistic]

    def prepare(self, data: PreparedData) -> None:
        """Count what the cascade's first model needs."""
        if self.cascade is not None:
            self.cascade.count(data)

    def after_step(self, learning_rate: float) -> None:
        """The proximal step, over all rows: AdamW's momentum moves rows that the batch does not touch, too, so all of
        them need it. It reads one array where the optimiser's own pass over the table reads four."""
        for weight in self.weights():
            shrink_(weight, learning_rate * self.sparsity.l1, learning_rate * self.sparsity.l21)

    def figures(self) -> dict[str, float]:
        """How many weights, and how many rows (features with any weight), are not zero."""
        return nonzero(self.weights())
