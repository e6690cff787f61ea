"""The proximal operator is the minimum it claims to be, and what it removes is exactly zero."""

import pytest
import torch
from torch import Tensor

from models.config import TrainConfig
from models.networks.config import MlrConfig
from models.networks.mlr import Mlr
from models.networks.registry import build
from models.networks.sparsity import nonzero, shrink_
from tests.models.world import SCHEMA, random_batch


def objective(v: Tensor, w: Tensor, a: float, b: float) -> Tensor:
    """Of one row, [...]: ½‖v − w‖² + a‖v‖₁ + b‖v‖."""
    found: Tensor = 0.5 * (v - w).square().sum(-1) + a * v.abs().sum(-1) + b * v.norm(dim=-1)
    return found


def test_closed_forms() -> None:
    w = torch.tensor([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0], [0.25, -2.0]])
    l1, l21, both = w.clone(), w.clone(), w.clone()
    shrink_(l1, 0.35, 0.0)
    torch.testing.assert_close(l1, torch.tensor([[2.65, -3.65], [0.0, 0.05], [0.0, 0.0], [0.0, -1.65]]))
    shrink_(l21, 0.0, 1.0)  # rows of length 5, 0.5, 0, 2.0156
    torch.testing.assert_close(l21[:3], torch.tensor([[2.4, -3.2], [0.0, 0.0], [0.0, 0.0]]))
    shrink_(both, 1.0, 2.0)  # (2, -3) has length √13
    torch.testing.assert_close(both[0], torch.tensor([2.0, -3.0]) * (1 - 2 / 13**0.5))
    assert not both[1:3].any()
    shrink_(w, 0.0, 0.0)
    assert w[0].tolist() == [3.0, -4.0]


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.0), (0.0, 0.7), (0.2, 0.4), (2.0, 1.0)])
def test_nothing_near_is_better(a: float, b: float) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(20, 3, dtype=torch.float64, generator=generator)
    found = w.clone()
    shrink_(found, a, b)
    best = objective(found, w, a, b)
    for size in (1.0, 0.1, 0.001):
        near = found + size * torch.randn(2_000, 20, 3, dtype=torch.float64, generator=generator)
        assert (objective(near, w, a, b) >= best - 1e-12).all()
    assert (objective(torch.zeros_like(w), w, a, b) >= best - 1e-12).all()


def test_zeros_are_counted() -> None:
    first = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    found = nonzero([first, torch.tensor([[2.0, 3.0]]), torch.zeros(0, 2)])
    assert found == {"model.rows": 3, "model.nonzero_rows": 2, "model.nonzero_weights": 3}


@pytest.mark.parametrize(("l1", "l21"), [(0.0, 1.5), (0.5, 0.0), (0.0, 0.0)])
def test_training_leaves_exact_zeros_and_rows_leave_together(l1: float, l21: float) -> None:
    torch.manual_seed(0)
    mlr = build(MlrConfig(kind="mlr", pieces=3, l1=l1, l21=l21), SCHEMA)
    assert isinstance(mlr, Mlr)
    optimizer = torch.optim.AdamW(mlr.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(60):
        mlr.train()
        optimizer.zero_grad()
        torch.autograd.backward(mlr.loss(random_batch(30, 4, 7, seed=step)))
        optimizer.step()
        mlr.after_step(0.01)
    held = mlr.arena.weight.detach()[1:] != 0
    rows, weights = held.any(dim=1), held.sum()
    figures = mlr.figures()
    numbers = sum(int((each != 0).sum()) for each in mlr.vectors.numbers.values())
    assert figures["model.nonzero_weights"] == weights + numbers
    assert figures["model.rows"] == len(held) + 2
    if l21:
        assert 0 < rows.sum() < len(rows) / 2
        assert torch.equal(held.all(dim=1), rows), "a feature has all of its weights or none"
    elif l1:
        assert 0 < weights < held.numel() / 2
        assert not torch.equal(held.all(dim=1), rows), "weights leave one by one"
    else:
        assert rows.float().mean() > 0.9


def test_an_average_of_weights_is_refused() -> None:
    whole = {"name": "x", "dataset": "x.yaml", "training": {"averaging": 0.9}}
    with pytest.raises(ValueError, match=r"averaging is 0\.9, but an average of weights has no zeros"):
        TrainConfig.model_validate(whole | {"model": {"kind": "mlr", "l21": 0.1}})
    TrainConfig.model_validate(whole | {"model": {"kind": "mlr"}})
