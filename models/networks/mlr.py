"""MLR, mixed logistic regression, or LS-PLM (Gai et al., arXiv 1704.05194): the space is cut into pieces, each with a
logistic regression of its own.

    p(x) = Σ_m softmax_m(u·x) · σ(w_m·x)        u: the gate's weights, w: the experts', m pieces

A feature's row of weights is (u_1..u_m, w_1..w_m), which is what L2,1 removes at once. `pieces: 1` is LR.

Structure prior: the gate reads user, context and histories, the experts read the ad, so that people are grouped and ads
judged. With `prior_steps` that is only where training begins: after so many steps gate and experts read everything,
what the prior forbade starting from zero (incremental training).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.config import MlrConfig
from models.networks.layers import spread
from models.networks.linear import LinearNetwork


class Mlr(LinearNetwork):
    """Logit of each candidate."""

    steps: Tensor

    def __init__(self, config: MlrConfig, schema: FeatureSchema) -> None:
        super().__init__(config, schema, out=2 * config.pieces, std=config.std)
        self.config, self.pieces = config, config.pieces
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        if config.prior:
            self._forbid(schema)

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        gate, expert = self.scores(batch)
        return self.biased(mixture_logit(gate, expert), batch)

    def scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """u·x and w·x of every piece, [M, m] each; the gate's stay [1, m] where one request is all they depend on."""
        once, each = self.sums(batch)
        for_gate, for_expert = spread(once[..., : self.pieces], batch.request), each[..., self.pieces :]
        if not self.restricted:
            for_gate = for_gate + each[..., : self.pieces]
            for_expert = for_expert + spread(once[..., self.pieces :], batch.request)
        gate, expert = torch.split(self.intercept, self.pieces)
        return for_gate + gate, for_expert + expert

    @property
    def restricted(self) -> bool:
        """Whether the prior is in force. With `prior_steps` only training asks: what it forbids is zero until then."""
        if not self.config.prior or self.config.prior_steps is None:
            return self.config.prior
        return self.training and int(self.steps) < self.config.prior_steps

    def after_step(self, learning_rate: float) -> None:
        """The proximal step; and steps are counted."""
        super().after_step(learning_rate)
        self.steps += 1

    def _forbid(self, schema: FeatureSchema) -> None:
        """Set to zero what the prior forbids: the gate's weights of the ad, the experts' of everything else."""
        with torch.no_grad():
            of_ads = torch.zeros(len(self.arena.weight), 1, dtype=torch.bool)
            for field in schema.ad.embedded_fields:
                first = self.arena.starts[self.arena.table("ad", field)] + 1
                of_ads[first : first + field.size - 1] = True
            gates = torch.arange(2 * self.pieces) < self.pieces
            self.arena.weight.masked_fill_(of_ads == gates, 0.0)
            for side, weights in self.vectors.numbers.items():
                weights.masked_fill_(gates if side == "ad" else ~gates, 0.0)
            if self.of_statistic is not None:
                self.of_statistic.masked_fill_(gates, 0.0)


def mixture_logit(gate: Tensor, expert: Tensor) -> Tensor:
    """log p − log(1 − p) of p = Σ_m softmax_m(gate) · σ(expert), [M] of [M, m] or [1, m] and [M, m]. What the softmax
    divides by cancels; neither p nor 1 − p is ever computed, so no logit is infinite."""
    clicked = torch.logsumexp(gate + F.logsigmoid(expert), dim=-1)
    return clicked - torch.logsumexp(gate + F.logsigmoid(-expert), dim=-1)
