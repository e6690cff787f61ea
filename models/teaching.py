"""A network that learns from trained ones beside the clicks, while it is fine-tuned (Hinton et al., arXiv 1503.02531;
squared difference of logits as in Ba and Caruana, arXiv 1312.6184).

    loss = CE(l, y) + w · mean (l − z)²        l the pupil's logits, z the mean of the teachers', which do not change

The second part may be taken over candidates that are dealt to the batch's requests anew. Of pairs that they were
trained on, teachers know a part of the clicks by heart; of dealt ones nobody knows a click. A teacher may be asked
about any input (Beyer et al., arXiv 2106.05237).
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import ConfigError
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.networks.network import Network


@dataclass(frozen=True, slots=True)
class Lesson:
    """Who teaches, and how much that weighs."""

    teachers: tuple[Network, ...]
    """At least one, in evaluation mode."""
    weight: float
    dealt: bool = False
    """Over candidates dealt to the requests of their batch."""


def dealt(batch: Batch) -> Batch:
    """The same candidates, each at another's request and position, by torch's random state."""
    order = torch.randperm(len(batch.labels))
    return replace(batch, request=batch.request[order], positions=batch.positions[order])


class Taught(nn.Module):
    """A network in training beside its teachers, which are no part of it: neither trained nor saved."""

    def __init__(self, pupil: Network, lesson: Lesson) -> None:
        """ConfigError when the pupil minimises something else than the cross-entropy of its logits."""
        super().__init__()
        if type(pupil).loss is not Network.loss:
            raise ConfigError(
                f"a {type(pupil).__name__} has a loss of its own; only a network that minimises the cross-entropy of "
                "its logits can be taught"
            )
        self.pupil = pupil
        self._lesson = lesson  # no Module, so it keeps the teachers out of parameters() and state_dict()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M] of the pupil."""
        logits: Tensor = self.pupil(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """What training minimises, a scalar."""
        logits = self.pupil(batch)
        clicks = F.binary_cross_entropy_with_logits(logits, batch.labels)
        if self._lesson.dealt:
            batch = dealt(batch)
            logits = self.pupil(batch)
        with torch.no_grad():
            taught = torch.stack([teacher(batch) for teacher in self._lesson.teachers]).mean(0)
        return clicks + self._lesson.weight * F.mse_loss(logits, taught)

    def prepare(self, data: PreparedData) -> None:
        """What the pupil counts before training."""
        self.pupil.prepare(data)

    def after_step(self, learning_rate: float) -> None:
        """What the pupil has left to do when the optimiser has moved the weights."""
        self.pupil.after_step(learning_rate)
