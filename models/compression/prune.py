"""Fewer units in hidden layers. What comes out is the same network with a smaller `hidden` or `attention_hidden`.

The next layer reads z = V a of a layer's activations a [h]. Units leave one at a time; what a unit said is taken over
by those that stay, as well as a linear map of them can, and by the bias. With C = Cov(a) over calibration rows and
P = C⁻¹ of the units that are left, taking unit j away so costs, and does,

    E‖Δz‖² = ‖V_j‖² / P_jj            V ← V - V_j P_j / P_jj            P ← P - P_jᵀ P_j / P_jj

the structured form of Optimal Brain Surgeon (Hassibi and Stork, NIPS 1992; of layers, Frantar and Alistarh, arXiv
2208.11580). The unit that costs least leaves; one that is constant, or a linear function of others, costs nothing. At
the end the bias is moved so that E[z] stays. Layers are taken from the top down, so that only outputs that stay count.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.compression.moments import Moments, of_activations
from models.compression.recipe import Prune
from models.compression.subject import CompressionError, Material, Subject
from models.networks.config import DeepConfig, DinConfig, NetworkConfig
from models.networks.layers import Mlp
from models.networks.low_rank import LowRank
from models.networks.network import Network

RIDGE = 1e-6
"""Added to C's diagonal, relative to its mean: units that depend on each other linearly would make it singular."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A hidden layer: the layer before its units, their activation, and the layer that reads them, as paths."""

    layer: str
    activation: str
    following: str
    keep: int


def prune(step: Prune, subject: Subject, material: Material) -> Subject:
    """The network with fewer units. CompressionError where there are no such layers or not so many units, weights are
    not finite, or calibration rows are fewer than units."""
    network = subject.network
    stages = stages_of(step, subject.model, network)
    moments = of_activations(network, [s.activation for s in stages], material.calibration(step.impressions))
    state = dict(network.state_dict())
    for stage in reversed(stages):
        found = moments[stage.activation]
        units = len(found.mean)
        if stage.keep == units:
            continue
        if found.rows < units:
            raise CompressionError(
                f"prune: {found.rows} calibration rows reach the {units} units of {stage.activation!r}; impressions is "
                f"{step.impressions}"
            )
        _take_out(state, network, stage, found)
    update: dict[str, object] = {}
    if step.hidden is not None:
        update["hidden"] = step.hidden
    if step.attention_hidden is not None:
        update["attention_hidden"] = step.attention_hidden
    return subject.rebuilt(subject.model.model_copy(update=update), state)


def stages_of(step: Prune, model: NetworkConfig, network: Network) -> list[Stage]:
    """The layers that lose units, from the input to the output."""
    found: list[Stage] = []
    if step.attention_hidden is not None:
        if not isinstance(model, DinConfig):
            raise CompressionError(f"prune: attention_hidden is of a din, this is a {model.kind}")
        _require_fewer("attention_hidden", step.attention_hidden, model.attention_hidden)
        units: nn.Module = network.get_submodule("attention")
        for name, _ in units.named_children():
            at = f"attention.{name}"
            first, second = step.attention_hidden
            found.append(Stage(f"{at}.first", f"{at}.first_activation", f"{at}.second", first))
            found.append(Stage(f"{at}.second", f"{at}.second_activation", f"{at}.out", second))
    if step.hidden is not None:
        if not isinstance(model, DeepConfig) or not isinstance(getattr(network, "mlp", None), Mlp):
            raise CompressionError(f"prune: hidden is of a network on top, a {model.kind} has no such network")
        _require_fewer("hidden", step.hidden, model.hidden)
        paths = [*(f"mlp.layers.{i}" for i in range(len(step.hidden))), "mlp.out"]
        for i, keep in enumerate(step.hidden):
            found.append(Stage(paths[i], f"mlp.activations.{i}", paths[i + 1], keep))
    return found


def chosen(columns: Tensor, moments: Moments, keep: int) -> tuple[Tensor, Tensor]:
    """Units that stay, int64[keep], ascending, and the columns [out, keep] that read them. `columns` [out, h] are those
    that read all, of float64."""
    covariance = moments.covariance
    ridge = RIDGE * float(covariance.diagonal().mean())
    eye = torch.eye(len(covariance), dtype=torch.float64)
    inverse = torch.linalg.inv(covariance + (ridge if ridge > 0 else 1.0) * eye)
    left = torch.ones(len(covariance), dtype=torch.bool)
    v = columns.clone()
    for _ in range(len(covariance) - keep):
        diagonal = inverse.diagonal()
        costs = v.square().sum(0) / diagonal.where(left, torch.ones_like(diagonal))
        j = int(costs.where(left, torch.full_like(costs, torch.inf)).argmin())
        row = inverse[j] / diagonal[j]
        v = v - torch.outer(v[:, j], row)
        inverse = inverse - torch.outer(inverse[:, j], row)
        left[j] = False
        v[:, j], inverse[j], inverse[:, j] = 0.0, 0.0, 0.0
    units = left.nonzero().squeeze(1)
    return units, v[:, units]


def _take_out(state: dict[str, Tensor], network: Network, stage: Stage, moments: Moments) -> None:
    """Slice the layer's rows and its activation, and give the next layer other columns and another bias."""
    following, layer = network.get_submodule(stage.following), network.get_submodule(stage.layer)
    reads = f"{stage.following}.inner" if isinstance(following, LowRank) else stage.following
    gives = f"{stage.layer}.outer" if isinstance(layer, LowRank) else stage.layer
    old = state[f"{reads}.weight"].double()
    if not torch.isfinite(old).all() or not torch.isfinite(moments.second).all():
        raise CompressionError(f"prune: layer {stage.following!r}, or what it reads, holds values that are not finite")
    units, columns = chosen(old, moments, stage.keep)
    moved = old @ moments.mean - columns @ moments.mean[units]
    state[f"{reads}.weight"] = columns.float().contiguous()
    if f"{reads}.bias" in state:
        state[f"{reads}.bias"] = (state[f"{reads}.bias"].double() + moved).float()
    else:  # the inner factor of a layer of low rank has no bias: what it would say, the outer one does
        outer = state[f"{stage.following}.outer.weight"].double()
        name = f"{stage.following}.outer.bias"
        state[name] = (state[name].double() + outer @ moved).float()
    for name in [f"{gives}.weight", f"{gives}.bias", *_per_unit(state, stage.activation, len(old[0]))]:
        state[name] = state[name][units].contiguous()


def _per_unit(state: Mapping[str, Tensor], activation: str, units: int) -> list[str]:
    """Parameters and statistics of an activation that have one value a unit."""
    return [name for name, value in state.items() if name.startswith(f"{activation}.") and value.shape == (units,)]


def _require_fewer(name: str, keep: tuple[int, ...], units: tuple[int, ...]) -> None:
    if len(keep) != len(units) or any(a > b for a, b in zip(keep, units, strict=False)):
        raise CompressionError(
            f"prune: {name} is {list(keep)}, the network has {list(units)}, each can only get smaller"
        )
