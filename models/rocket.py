"""Rocket Launching (Zhou et al., arXiv 1708.04106): a light net is trained beside a booster, and learns from it.

    loss = CE(l, y) + CE(z, y) + λ · hint        l the light net's logits, z the booster's
    hint = mean (l − z)²                         method hint
    hint = mean (l − z − mean(l − z))²           method hint, centre: what differs between candidates, not the level
    hint = T² · mean KL(σ(z/T) ‖ σ(l/T))         method kd: knowledge distillation from the booster as it learns

Low layers are shared: both networks read one arena of embeddings. Gradient block: z is a constant in the hint, so the
booster learns from clicks alone. Only the light net is served, and it is what a checkpoint holds.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bundle.schema import FeatureSchema
from models.config import ConfigError, RocketConfig
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.networks.config import QscoreConfig
from models.networks.layers import table_weights
from models.networks.network import Network
from models.networks.registry import build
from models.teaching import Taught

BOOSTER = "booster.pt"
"""The booster's state_dict, of the evaluation that best.pt has the light net of."""


class Rocket(nn.Module):
    """Two networks in training; its logits are those of the light net."""

    def __init__(self, light: Network, booster: Network, settings: RocketConfig) -> None:
        """ConfigError when one of the networks minimises something else than the cross-entropy of its logits."""
        super().__init__()
        for place, network in (("model", light), ("rocket.booster", booster)):
            if type(network).loss is not Network.loss:
                raise ConfigError(
                    f"rocket: {place}, a {type(network).__name__}, has a loss of its own; a rocket's networks minimise "
                    "the cross-entropy of their logits"
                )
        if settings.share:
            booster.arena = light.arena
        self.light, self.booster, self.settings = light, booster, settings
        self._averages: tuple[Network, ...] = ()  # in a tuple, so that it is no part of this module

    def forward(self, batch: Batch) -> Tensor:
        """Logits [M] of the light net."""
        logits: Tensor = self.light(batch)
        return logits

    def loss(self, batch: Batch) -> Tensor:
        """What training minimises, a scalar."""
        light, booster = self.light(batch), self.booster(batch)
        clicks = sum(F.binary_cross_entropy_with_logits(logits, batch.labels) for logits in (light, booster))
        if not self.settings.hint:
            return torch.as_tensor(clicks)
        hint = self.settings.hint * self.hint(light, self._taught(batch, booster))
        if self.settings.block_arena:
            hint = only_through(hint, self._dense())
        return clicks + hint

    def averaged_in(self, averaged: "Rocket") -> None:
        """The rocket whose weights are this one's averages: with teacher `averaged` its booster gives the hint."""
        self._averages = (averaged.booster,)

    def _taught(self, batch: Batch, booster: Tensor) -> Tensor:
        """The logits [M] that the light net is to come near; `booster` those of the booster in training."""
        if self.settings.teacher == "live":
            return booster
        (teacher,) = self._averages
        teacher.eval()
        with torch.no_grad():
            logits: Tensor = teacher(batch)
        return logits

    def hint(self, light: Tensor, booster: Tensor) -> Tensor:
        """How far the light net's logits [M] are from the booster's [M], a scalar."""
        if self.settings.block:
            booster = booster.detach()
        if self.settings.centre:
            return (light - booster).var(correction=0)
        if self.settings.method == "hint":
            return F.mse_loss(light, booster)
        t = self.settings.temperature
        taught = torch.sigmoid(booster / t)
        entropy = F.binary_cross_entropy_with_logits(booster / t, taught)
        return t * t * (F.binary_cross_entropy_with_logits(light / t, taught) - entropy)

    def _dense(self) -> list[nn.Parameter]:
        """All parameters but embeddings."""
        tables = {id(weight) for weight in table_weights(self)}
        return [each for each in self.parameters() if id(each) not in tables]

    def prepare(self, data: PreparedData) -> None:
        """What each network counts before training."""
        self.light.prepare(data)
        self.booster.prepare(data)

    def after_step(self, learning_rate: float) -> None:
        """What each network has left to do when the optimiser has moved the weights."""
        self.light.after_step(learning_rate)
        self.booster.after_step(learning_rate)


def only_through(value: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The scalar `value`, whose gradient reaches `parameters` and nothing else."""
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    first_order = torch.zeros(())
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            first_order = first_order + (parameter * gradient).sum()
    return value.detach() + (first_order - first_order.detach())


def launch(light: Network, settings: RocketConfig, schema: FeatureSchema) -> Rocket:
    """`light` beside a freshly initialised booster."""
    return Rocket(light, _booster(settings, schema), settings)


def owners(network: Network | Rocket | Taught) -> list[Network]:
    """The networks with an arena of their own: whose embeddings are pre-trained and regularised."""
    if isinstance(network, Taught):
        return [network.pupil]
    if not isinstance(network, Rocket):
        return [network]
    return [network.light] if network.settings.share else [network.light, network.booster]


def files_of(network: Network | Rocket | Taught) -> dict[str, Network]:
    """What a checkpoint keeps: file -> network. best.pt is that of the network as it is served."""
    if isinstance(network, Taught):
        return {"best.pt": network.pupil}
    if not isinstance(network, Rocket):
        return {"best.pt": network}
    return {"best.pt": network.light, BOOSTER: network.booster}


def read_booster(folder: Path, settings: RocketConfig, schema: FeatureSchema) -> Network:
    """The booster beside the light net of a checkpoint, in evaluation mode."""
    booster = _booster(settings, schema)
    booster.load_state_dict(torch.load(folder / BOOSTER, weights_only=True))
    return booster.eval()


def _booster(settings: RocketConfig, schema: FeatureSchema) -> Network:
    assert not isinstance(settings.booster, QscoreConfig), "refused with the configuration"
    return build(settings.booster, schema)
