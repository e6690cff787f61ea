"""The activation unit against a plain second formulation that does build [q, k, q - k, q ⊙ k]."""

import pytest
import torch

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
    filled = torch.tensor([[True] * 5, [True, True, False, False, False], [False] * 5])
    with torch.no_grad():
        torch.testing.assert_close(unit(q, k, filled, request), plain(unit, q, k[request], filled[request]))


@pytest.mark.parametrize("mode", ["sum", "softmax"])
def test_appended_padding_changes_nothing(mode: str) -> None:
    unit = ActivationUnit(D, (4, 3), "dice", mode).eval()
    shake(unit)
    q, k, request = torch.randn(M, D), torch.randn(2, L, D), torch.tensor([0] * 3 + [1] * 4)
    filled = torch.ones(2, L, dtype=torch.bool)
    longer = torch.cat([k, torch.randn(2, 9, D)], dim=1)
    none = torch.zeros(2, 9, dtype=torch.bool)
    with torch.no_grad():
        found = unit(q, longer, torch.cat([filled, none], dim=1), request)
        assert (found - unit(q, k, filled, request)).abs().max() <= 1e-6


def test_softmax_of_an_empty_history_is_no_interest_and_has_finite_gradients() -> None:
    unit = ActivationUnit(D, (4, 3), "dice", "softmax")
    q, k = torch.randn(2, D), torch.randn(1, L, D, requires_grad=True)
    found = unit(q, k, torch.zeros(1, L, dtype=torch.bool), torch.tensor([0, 0]))
    assert found.abs().max() == 0
    found.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in unit.parameters() if p.grad is not None)
