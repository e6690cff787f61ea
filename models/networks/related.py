"""A related task beside the asked one: each scene has a network for each of the two, over one lookup table and, where
there are shared layers, one bottom (Caruana, Machine Learning 1997). Both labels are known of every impression.

    loss = CE(z, y) + weight · CE(r, y_related)          z the asked task's logits, r the related task's

Label transfer, from a plentiful label (click) to a scarce one (like), is what z takes from r; o are the logits of the
asked task's own networks:

    none       z = o
    logit      z = o + a · r       a learnt, 1 at first; r a constant here: the related task learns from its label alone
    product    σ(z) = σ(o) · σ(r)  p(like) = p(click) · p(like | click), learnt from all impressions
                                   (ESMM, Ma et al., SIGIR 2018, arXiv 1804.07931)

Both logits have the same bias of the position, z once.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.data.batches import Batch
from models.networks.activations import Activation
from models.networks.config import MtlConfig, RelatedTask
from models.networks.mtl import Mtl, SceneLinear


def mtl(config: MtlConfig, schema: FeatureSchema) -> Mtl:
    """The network of a configuration, with a related task or without."""
    return Mtl(config, schema) if config.related is None else RelatedMtl(config, config.related, schema)


class RelatedMtl(Mtl):
    """Logit of each candidate: the asked task's."""

    def __init__(self, config: MtlConfig, related: RelatedTask, schema: FeatureSchema) -> None:
        """As Mtl."""
        super().__init__(config, schema)
        self.related = related
        own = self.scenes[0]
        assert isinstance(own, SceneLinear)
        scenes, _, width = own.weight.shape
        self.related_scenes = self.networks(scenes, width)
        self.related_activations = nn.ModuleList(Activation(config.activation, units) for units in config.hidden)
        self.share = nn.Parameter(torch.ones(())) if related.transfer == "logit" else None

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M]."""
        if self.related.transfer == "none":  # the related task's networks are not asked
            return super().forward(batch)
        return self.both(batch)[0]

    def both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits [M] of the asked task and of the related one."""
        read = self.read(batch)
        bottom = self.bottom(read)
        own = self.logits(read, bottom, self.scenes, self.own_activations)
        other = self.logits(read, bottom, self.related_scenes, self.related_activations)
        if self.related.transfer == "product":
            own = product(own, other)
        elif self.share is not None:
            own = own + self.share * other.detach()
        return self.biased(own, batch), self.biased(other, batch)

    def loss(self, batch: Batch) -> Tensor:
        """What training minimises, a scalar; the batch must have the related label."""
        own, other = self.both(batch)
        beside = F.binary_cross_entropy_with_logits(other, batch.further[self.related.label])
        return F.binary_cross_entropy_with_logits(own, batch.labels) + self.related.weight * beside


def product(a: Tensor, b: Tensor) -> Tensor:
    """The logit of σ(a) · σ(b): −ln(e^−a + e^−b + e^−(a+b)), without forming a power that could overflow."""
    u, v = F.softplus(-b) - a, -b  # e^u = e^−a + e^−(a+b), e^v = e^−b
    return -(torch.maximum(u, v) + F.softplus(-(u - v).abs()))
