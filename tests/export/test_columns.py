"""Linear layer, activation, linear layer: the same with the activation's linear parts folded into both."""

import pytest
import torch
from torch import nn

from export.columns import ColumnActivation
from models.networks.activations import Activation

UNITS = 7


def both(activation: Activation, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As trained and as served, [out, M] of x [in, M]."""
    torch.manual_seed(1)
    before, after = nn.Linear(4, UNITS), nn.Linear(UNITS, 3)
    column = ColumnActivation(activation)
    with torch.no_grad():
        expected = after(activation(before(x.T))).T
        middle = column.scaled_rows(before.weight) @ x + column.moved_bias(before.bias).unsqueeze(-1)
        found = column.scaled_columns(after.weight) @ column(middle) + after.bias.unsqueeze(-1)
    return expected, found


@pytest.mark.parametrize("alpha", [-3.0, -0.2, 0.0, 0.5, 0.999, 1.0, 1.001, 4.0])
def test_dice_with_any_slope(alpha: float) -> None:
    activation = Activation("dice", UNITS).eval()
    assert activation.dice is not None
    torch.manual_seed(0)
    activation.dice.mean.normal_()
    activation.dice.variance.uniform_(0.01, 4.0)
    nn.init.constant_(activation.dice.alpha, alpha)
    expected, found = both(activation, torch.randn(4, 50))
    assert (expected - found).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.25, 1.0, 3.0])
def test_prelu_with_any_slope(slope: float) -> None:
    activation = Activation("prelu", UNITS).eval()
    assert activation.slope is not None
    nn.init.constant_(activation.slope, slope)
    expected, found = both(activation, torch.randn(4, 50))
    assert (expected - found).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", ["relu", "sigmoid"])
def test_nothing_is_folded_where_nothing_is_linear(kind: str) -> None:
    weight = torch.randn(UNITS, 4)
    column = ColumnActivation(Activation(kind, UNITS))
    assert column.scaled_rows(weight) is weight
    expected, found = both(Activation(kind, UNITS), torch.randn(4, 50))
    assert (expected - found).abs().max() <= 1e-6
