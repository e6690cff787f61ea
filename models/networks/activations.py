"""Activations that all networks share: Dice, PReLU, sigmoid and ReLU behind one interface."""

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """Data-adaptive activation: p·x + (1 - p)·α·x with p = σ((x - E[x]) / sqrt(Var[x] + ε)).

    E and Var are of the batch in training and running averages otherwise, per unit, as α is (arXiv 1706.06978, eq. 3).
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, units: int, momentum: float = 0.01, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(units))
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("mean", torch.zeros(units))
        self.register_buffer("variance", torch.ones(units))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., units]; `mask` [...] (1 where real) keeps padding out of the statistics."""
        if self.training and (mask is None or bool(mask.any())):
            mean, variance = _moments(x, mask)
            with torch.no_grad():
                # A plain mean over the first 1/momentum batches: after one short epoch a moving average from (0, 1)
                # would still hold a share of where it started.
                self.batches += 1
                rate = torch.clamp(1 / self.batches, min=self.momentum)
                self.mean.lerp_(mean.detach(), rate)
                self.variance.lerp_(variance.detach(), rate)
        else:
            mean, variance = self.mean, self.variance
        p = torch.sigmoid((x - mean) * torch.rsqrt(variance + self.epsilon))
        return x * (self.alpha + p * (1 - self.alpha))


def _moments(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each unit over all (real) positions."""
    flat = x.flatten(0, -2)
    if mask is None:
        variance, mean = torch.var_mean(flat, dim=0, correction=0)
        return mean, variance
    weight = mask.flatten().to(x.dtype).unsqueeze(0)
    weight = weight / weight.sum().clamp(min=1)
    mean = (weight @ flat).squeeze(0)
    return mean, (weight @ (flat - mean).square()).squeeze(0)


class Activation(nn.Module):
    """Dice, PReLU (one slope a unit), sigmoid or ReLU behind one interface."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.kind, self.units = kind, units
        self.dice = Dice(units) if kind == "dice" else None
        self.slope = nn.Parameter(torch.full((units,), 0.25)) if kind == "prelu" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[..., units]"""
        if self.dice is not None:
            activated: Tensor = self.dice(x, mask)
            return activated
        if self.slope is not None:
            return torch.where(x > 0, x, x * self.slope)
        return torch.sigmoid(x) if self.kind == "sigmoid" else torch.relu(x)
