"""Activations that all networks share: Dice, PReLU, sigmoid and ReLU behind one interface."""

import torch
from torch import Tensor, nn

from models.networks.dice import Dice


class Activation(nn.Module):
    """Dice, PReLU (one slope a unit), sigmoid or ReLU behind one interface."""

    def __init__(self, kind: str, units: int) -> None:
        super().__init__()
        self.kind, self.units = kind, units
        self.dice = Dice(units) if kind == "dice" else None
        self.slope = nn.Parameter(torch.full((units,), 0.25)) if kind == "prelu" else None

    def forward(self, x: Tensor) -> Tensor:
        """[..., units]"""
        if self.dice is not None:
            activated: Tensor = self.dice(x)
            return activated
        if self.slope is not None:
            return torch.where(x > 0, x, x * self.slope)
        return torch.sigmoid(x) if self.kind == "sigmoid" else torch.relu(x)
