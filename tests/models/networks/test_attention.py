"""The activation unit against a plain second formulation that does build [q, k, q - k, q ⊙ k]."""

import pytest
import torch

from models.networks.activations import Activation
from models.networks.attention import ActivationUnit
from tests.models.world import shake

M, L, D = 7, 5, 6


def plain(unit: ActivationUnit, q: torch.Tensor, k: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
    """One candidate and one behaviour at a time; q [M, D], k [M, L, D]."""
    interests = []
    for m in range(len(q)):
        scores = []
        for behaviour in range(k.shape[1]):
            a, b = q[m], k[m, behaviour]
            x = unit.first(torch.cat([a, b, a - b, a * b]).unsqueeze(0))
            x = unit.second_activation(unit.second(unit.first_activation(x)))
            scores.append(unit.out(x)[0, 0])
        real = [i for i in range(k.shape[1]) if filled[m, i]]
        weights = torch.stack(scores)[real] if real else torch.zeros(0)
        if unit.mode == "softmax":
            weights = torch.softmax(weights / D**0.5, 0)
        interests.append((weights.unsqueeze(-1) * k[m, real]).sum(0))
    return torch.stack(interests)


@pytest.mark.parametrize("mode", ["sum", "softmax"])
@pytest.mark.parametrize("activation", ["dice", "prelu", "sigmoid", "relu"])
def test_equals_the_concatenated_form(mode: str, activation: str) -> None:
    torch.manual_seed(1)
    unit = ActivationUnit(D, (4, 3), activation, mode).eval()
    shake(unit)
    q, k, request = torch.randn(M, D), torch.randn(3, L, D), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    filled = torch.tensor([[True] * 5, [False] * 5, [True, True, False, False, False]])
    with torch.no_grad():
        found = unit(q, k[filled], filled.sum(1), request)
        torch.testing.assert_close(found, plain(unit, q, k[request], filled[request]))


@pytest.mark.parametrize("mode", ["sum", "softmax"])
@pytest.mark.parametrize("activation", ["dice", "relu"])
def test_gradients_equal_those_of_the_concatenated_form(mode: str, activation: str) -> None:
    """In training: Dice's statistics are of real behaviours, and its derivative is written out."""
    torch.manual_seed(2)
    unit = ActivationUnit(D, (4, 3), activation, mode).double()
    shake(unit)
    q = torch.randn(M, D, dtype=torch.float64, requires_grad=True)
    k = torch.randn(3, L, D, dtype=torch.float64, requires_grad=True)
    request = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    filled = torch.tensor([[True] * 5, [False] * 5, [True, True, True, False, False]])

    def padded() -> torch.Tensor:
        """[M, L, 4D] and a mask, as others do it."""
        mask, mine, own = filled[request], k[request], q.unsqueeze(1).expand(-1, L, -1)
        x = unit.first(torch.cat([own, mine, own - mine, own * mine], dim=-1))
        x = plain_activation(
            unit.second(plain_activation(x, mask, unit.first_activation)), mask, unit.second_activation
        )
        scores = unit.out(x).squeeze(-1)
        if mode == "softmax":
            scores = torch.softmax((scores / D**0.5).masked_fill(~mask, -torch.inf), 1).nan_to_num(0.0)
        pooled: torch.Tensor = ((scores * mask).unsqueeze(-1) * mine).sum(1)
        return pooled

    wanted = [q, k, *unit.parameters()]
    weight = torch.randn(M, D, dtype=torch.float64)
    expected = torch.autograd.grad((padded() * weight).sum(), wanted)
    found = torch.autograd.grad((unit(q, k[filled], filled.sum(1), request) * weight).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def plain_activation(x: torch.Tensor, mask: torch.Tensor, activation: Activation) -> torch.Tensor:
    """ReLU, or Dice with the moments of real behaviours, left to autograd."""
    if activation.dice is None:
        return torch.relu(x)
    real = x[mask]
    p = torch.sigmoid((x - real.mean(0)) / torch.sqrt(real.var(0, correction=0) + activation.dice.epsilon))
    return p * x + (1 - p) * activation.dice.alpha * x


@pytest.mark.parametrize("mode", ["sum", "softmax"])
def test_an_empty_history_is_no_interest_and_has_finite_gradients(mode: str) -> None:
    unit = ActivationUnit(D, (4, 3), "dice", mode)
    q, k = torch.randn(2, D), torch.zeros(0, D, requires_grad=True)
    found = unit(q, k, torch.zeros(1, dtype=torch.int64), torch.tensor([0, 0]))
    assert found.abs().max() == 0
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in unit.parameters() if p.grad is not None)
