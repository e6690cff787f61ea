"""A network that learns from a trained one beside the clicks, while it is fine-tuned (Hinton et al., arXiv 1503.02531;
squared difference of logits as in Ba and Caruana, arXiv 1312.6184).

    loss = CE(l, y) + w · mean (l − z)²        l the pupil's logits, z the teacher's, which do not change
"""

from dataclasses import dataclass

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

    teacher: Network
    """In evaluation mode."""
    weight: float


class Taught(nn.Module):
    """A network in training beside its teacher, which is no part of it: neither trained nor saved."""

    def __init__(self, pupil: Network, lesson: Lesson) -> None:
        """ConfigError when the pupil minimises something else than the cross-entropy of its logits."""
        super().__init__()
        if type(pupil).loss is not Network.loss:
            raise ConfigError(
                f"a {type(pupil).__name__} has a loss of its own; only a network that minimises the cross-entropy of "
                "its logits can be taught"
            )
        self.pupil = pupil
        self._lesson = (lesson.teacher, lesson.weight)  # a tuple keeps the teacher out of parameters() and state_dict()

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M] of the pupil."""
        logits: Tensor = self.pupil(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """What training minimises, a scalar."""
        teacher, weight = self._lesson
        logits = self.pupil(batch)
        with torch.no_grad():
            taught = teacher(batch)
        return F.binary_cross_entropy_with_logits(logits, batch.labels) + weight * F.mse_loss(logits, taught)

    def prepare(self, data: PreparedData) -> None:
        """What the pupil counts before training."""
        self.pupil.prepare(data)

    def after_step(self, learning_rate: float) -> None:
        """What the pupil has left to do when the optimiser has moved the weights."""
        self.pupil.after_step(learning_rate)
