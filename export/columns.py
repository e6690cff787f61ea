"""Activations with candidates innermost, as cheap as they get: everything linear goes into the layers around them.

Dice is y = x·(α + (1 - α)·p) with p = σ(s·x + t), s = 1/sqrt(Var + ε) and t = -s·E. Let the layer before give
v = s·x + t, which costs nothing, and the layer after take its column times (1 - α)/s. What is left is

    (v - t)·(p + α/(1 - α))

one logistic function, two additions and a product instead of seven passes over [units, L, N] numbers: a fifth of the
time of the whole graph. PReLU likewise is relu(x) + x·a/(1 - a), and the next layer's column times 1 - a.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.networks.activations import Activation
from models.networks.low_rank import LowRank

LEAST = 1e-6
"""1 - α is kept this far from 0, by which it is divided; the output moves by a millionth of itself at most."""


class ColumnActivation(nn.Module):
    """An activation (models/networks/layers.py) for [units, M], between layers into which its linear parts were folded.

    The layer before has `scaled_rows` and `moved_bias`, the one after `scaled_columns` of the trained weights.
    """

    centre: Tensor
    base: Tensor

    def __init__(self, activation: Activation | None) -> None:
        """None: nothing, as between the factors of a layer of low rank."""
        super().__init__()
        self.kind = activation.kind if activation is not None else "none"
        self._scale: Tensor | None = None
        self._shift: Tensor | None = None
        self._gain: Tensor | None = None
        if activation is None:
            return
        if activation.dice is not None:
            dice = activation.dice
            self._scale = torch.rsqrt(dice.variance + dice.epsilon)
            self._shift = -dice.mean * self._scale
            rest = _not_zero(1 - dice.alpha.detach())
            self._gain = rest / self._scale
            self.register_buffer("centre", -self._shift.unsqueeze(-1))
            self.register_buffer("base", ((1 - rest) / rest).unsqueeze(-1))
        elif activation.slope is not None:
            self._gain = _not_zero(1 - activation.slope.detach())
            self.register_buffer("base", ((1 - self._gain) / self._gain).unsqueeze(-1))

    def scaled_rows(self, weight: Tensor) -> Tensor:
        """The preceding layer's weight [units, ...]."""
        return weight if self._scale is None else weight * self._scale.reshape(-1, *[1] * (weight.dim() - 1))

    def moved_bias(self, bias: Tensor) -> Tensor:
        """The preceding layer's bias [units]."""
        return bias if self._scale is None or self._shift is None else bias * self._scale + self._shift

    def scaled_columns(self, weight: Tensor) -> Tensor:
        """The following layer's weight [out, units]."""
        return weight if self._gain is None else weight * self._gain

    def forward(self, x: Tensor) -> Tensor:
        """[units, M]"""
        if self.kind == "none":
            return x
        if self.kind == "dice":
            activated: Tensor = (x + self.centre) * (torch.sigmoid(x) + self.base)
            return activated
        if self.kind == "prelu":
            return torch.relu(x) + x * self.base
        return torch.sigmoid(x) if self.kind == "sigmoid" else torch.relu(x)


class ColumnLinear(nn.Module):
    """A linear layer for [width, M], with or without a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(bias.unsqueeze(-1).clone()) if bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """[out, M]"""
        product = self.weight @ x
        return product if self.bias is None else product + self.bias


def folded(
    layers: Sequence[nn.Module], activations: Sequence[nn.Module]
) -> tuple[list[Tensor], list[Tensor | None], list[ColumnActivation]]:
    """Weights and biases of linear layers with the linear parts of the activations between them, and what is left of
    those. A layer of low rank is two, with its own activation, or nothing, between them."""
    linears: list[nn.Module] = []
    between: list[nn.Module | None] = []
    for layer, activation in zip(layers, [*activations, None], strict=True):
        if isinstance(layer, LowRank):
            linears.append(layer.inner)
            between.append(layer.between)
        linears.append(layer.outer if isinstance(layer, LowRank) else layer)
        between.append(activation)
    columns = [ColumnActivation(_activation(each)) for each in between[:-1]]
    weights: list[Tensor] = []
    biases: list[Tensor | None] = []
    for each in linears:
        assert isinstance(each, nn.Linear)
        weights.append(each.weight.detach())
        biases.append(each.bias.detach() if each.bias is not None else None)
    for i, column in enumerate(columns):
        bias = biases[i]
        weights[i], biases[i] = column.scaled_rows(weights[i]), None if bias is None else column.moved_bias(bias)
        weights[i + 1] = column.scaled_columns(weights[i + 1])
    return weights, biases, columns


def _activation(module: nn.Module | None) -> Activation | None:
    assert module is None or isinstance(module, Activation)
    return module


def _not_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < LEAST, torch.full_like(x, LEAST), x)
