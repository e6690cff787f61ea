"""Linear functions of sparse features, which several networks have: alone (lr.py), in pieces (mlr.py), or beside a deep
part.

    z = b + Σ over id fields of w[value] + Σ over histories of its behaviours' mean weight + Σ over numbers of w·x

A field of several values has the mean of their weights. Weights of ids are embeddings whose dimension is the number of
functions, in an arena that is not shared; what depends on the request alone is summed once a request.
"""

import torch
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.networks.cascade import Cascade
from models.networks.config import LinearConfig
from models.networks.layers import Arena, SideEncoder, spread
from models.networks.network import Network, Sides
from models.networks.sparsity import nonzero, shrink_


class LinearPart(nn.Module):
    """`out` linear functions of all features in a batch. The weights of ids are those of the `sides` handed in, which
    must have embeddings of dimension `out`; here are the weights of plain numbers and the intercepts.

    A network that has such a part beside others makes `Sides(schema, out, 0.0, shared=False)` for it.
    """

    def __init__(self, schema: FeatureSchema, out: int, std: float = 0.0, extra: int = 0) -> None:
        """`std`: spread of initial weights; `extra`: numbers of a candidate that the schema does not know."""
        super().__init__()
        self.out = out
        common = schema.user.number_columns + schema.context.number_columns
        self.request_numbers = nn.Parameter(torch.randn(common, out) * std)
        self.ad_numbers = nn.Parameter(torch.randn(schema.ad.number_columns + extra, out) * std)
        self.intercept = nn.Parameter(torch.zeros(out))

    def of_request(self, sides: Sides, batch: Batch) -> Tensor:
        """What user, context and histories add, [B, out]."""
        user = self._summed(sides.arena, sides.user, batch.user)
        total = user + self._summed(sides.arena, sides.context, batch.context)
        for mean in sides.of_histories(batch.histories):
            total = total + self._total(mean)
        if len(self.request_numbers):
            numbers = torch.cat([batch.user_numbers, batch.context_numbers], dim=-1)
            total = total + numbers @ self.request_numbers
        return total

    def of_ads(self, sides: Sides, batch: Batch, extra: Tensor | None = None) -> Tensor:
        """What the candidates' fields add, [M, out]; `extra` [M, extra numbers]."""
        total = self._summed(sides.arena, sides.ad, batch.ads)
        if len(self.ad_numbers):
            numbers = batch.ad_numbers if extra is None else torch.cat([batch.ad_numbers, extra], dim=-1)
            total = total + numbers @ self.ad_numbers
        return total

    def forward(self, sides: Sides, batch: Batch) -> Tensor:
        """All of it, [M, out]."""
        return spread(self.of_request(sides, batch), batch.request) + self.of_ads(sides, batch) + self.intercept

    def _summed(self, arena: Arena, encoder: SideEncoder, ids: Tensor) -> Tensor:
        """The weights of a side's ids, [..., out]."""
        if not encoder.widths:
            return torch.zeros(ids.shape[0], self.out)
        embedded: Tensor = encoder(arena, ids)  # several values of a field are averaged already
        return self._total(embedded)

    def _total(self, embedded: Tensor) -> Tensor:
        """The sum [..., out] of the embeddings of fields that stand one after another in [..., fields · out]."""
        return embedded.reshape(*embedded.shape[:-1], embedded.shape[-1] // self.out, self.out).sum(-2)


class LinearNetwork(Network):
    """A network of `out` linear functions and nothing else that is large: sparse by a proximal step, with the log-odds
    of a first model over statistics if it is a cascade."""

    def __init__(self, config: LinearConfig, schema: FeatureSchema, out: int, std: float) -> None:
        super().__init__(schema, out, std, shared=False)
        self.sparsity = config
        self.cascade = Cascade(schema) if config.cascade else None
        self.linear = LinearPart(schema, out, std, extra=int(config.cascade))
        if config.position_bias:
            self.learn_positions()

    def sums(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Of what belongs to the request [B, out] and of the candidates [M, out]; without the intercepts."""
        statistic = self.cascade(batch).unsqueeze(-1) if self.cascade is not None else None
        return self.linear.of_request(self, batch), self.linear.of_ads(self, batch, statistic)

    def weights(self) -> list[Tensor]:
        """What regularisation is about, [features, out] each: all weights but the intercepts and the position's."""
        return [self.arena.weight, self.linear.request_numbers, self.linear.ad_numbers]

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
