"""MLR is a mixture of logistic regressions, its logit is stable, and the prior's forbidden weights stay zero."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from benchmarks.diamond import NETWORKS, fit, impressions, points
from benchmarks.diamond import SCHEMA as SQUARE
from models.networks.config import LrConfig, MlrConfig
from models.networks.lr import Lr
from models.networks.mlr import Mlr, mixture_logit
from models.networks.registry import build
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch, shake


def test_a_case_by_hand() -> None:
    """Gate (log 3, 0): 3/4 and 1/4. Experts (0, log 9): 1/2 and 9/10. p = 0.375 + 0.225 = 0.6, its log-odds log 1.5."""
    found = mixture_logit(torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 9.0]]).log())
    torch.testing.assert_close(found, torch.tensor([1.5]).log())


def test_the_formula_as_the_paper_writes_it() -> None:
    mlr, batch = small("mlr"), random_batch(4, 3, 6)
    assert isinstance(mlr, Mlr)
    assert mlr.position is not None
    with torch.no_grad():
        gate, expert = mlr.scores(batch)
        p = (torch.softmax(gate, dim=1) * torch.sigmoid(expert)).sum(dim=1)
        bias = mlr.position.weight[batch.positions, 0]
        torch.testing.assert_close(mlr(batch), torch.log(p / (1 - p)) + bias, rtol=1e-4, atol=1e-5)
        assert gate.std(dim=1).min() > 0
        assert (gate - expert).abs().min() > 0, "the gate's weights are not the experts'"


def test_the_logit_is_finite_where_the_probability_is_not_representable() -> None:
    expert = torch.tensor([[90.0, 80.0], [-90.0, -80.0], [500.0, -500.0]], requires_grad=True)
    gate = torch.tensor([[0.0, 0.0], [0.0, 0.0], [300.0, -300.0]], requires_grad=True)
    found = mixture_logit(gate, expert)
    half = 80 + torch.tensor(2.0).log()  # 1 - p is about the second piece's alone
    torch.testing.assert_close(found[:2].detach(), torch.stack([half, -half]))
    assert found[2] == 500
    torch.autograd.backward(found.sum())
    assert expert.grad is not None
    assert gate.grad is not None
    assert torch.isfinite(expert.grad).all()
    assert torch.isfinite(gate.grad).all()


def test_one_piece_is_logistic_regression() -> None:
    mlr = build(MlrConfig(kind="mlr", pieces=1, position_bias=True), SCHEMA).eval()
    lr = build(LrConfig(kind="lr", position_bias=True), SCHEMA).eval()
    assert isinstance(mlr, Mlr)
    assert isinstance(lr, Lr)
    assert lr.position is not None
    assert mlr.position is not None
    shake(mlr)
    batch = random_batch(6, 4, 7)
    with torch.no_grad():
        lr.position.weight.copy_(mlr.position.weight)
        lr.intercept.copy_(mlr.intercept[1:])
        for mine, theirs in zip(lr.weights(), mlr.weights(), strict=True):
            mine.copy_(theirs[:, 1:])
        assert (lr(batch) - mlr(batch)).abs().max() <= 1e-6


def forbidden(mlr: Mlr) -> list[torch.Tensor]:
    """The gate's weights of ads, the experts' of requests."""
    m = mlr.pieces
    tables = sorted(mlr.arena.starts.items(), key=lambda each: each[1])
    ends = [start for _, start in tables[1:]] + [len(mlr.arena.weight) - 1]
    found = [weights[:, :m] if side == "ad" else weights[:, m:] for side, weights in mlr.vectors.numbers.items()]
    if mlr.of_statistic is not None:
        found.append(mlr.of_statistic[:, :m])
    for (table, start), end in zip(tables, ends, strict=True):
        rows = mlr.arena.weight[start + 1 : end + 1]
        found.append(rows[:, :m] if table.startswith("ad.") else rows[:, m:])
    return found


@pytest.mark.parametrize("prior_steps", [None, 3])
def test_what_the_prior_forbids_stays_zero_while_it_holds(prior_steps: int | None) -> None:
    torch.manual_seed(0)
    mlr = build(MlrConfig(kind="mlr", pieces=2, std=0.1, prior=True, prior_steps=prior_steps), SCHEMA)
    assert isinstance(mlr, Mlr)
    optimizer = torch.optim.AdamW(mlr.parameters(), lr=0.01, weight_decay=0.0)
    changed, start = [], mlr.arena.weight.detach().clone()
    for step in range(5):
        mlr.train()
        optimizer.zero_grad()
        torch.autograd.backward(mlr.loss(random_batch(30, 4, 7, seed=step)))
        optimizer.step()
        mlr.after_step(0.01)
        changed.append(any(bool(weight.detach().any()) for weight in forbidden(mlr)))
    assert changed == ([False] * 5 if prior_steps is None else [False, False, False, True, True])
    assert all(weight.detach().any() for weight in forbidden(mlr)) == (prior_steps is not None)
    assert (mlr.arena.weight - start).abs().max() > 0.01


@pytest.mark.parametrize("prior_steps", [None, 3])
def test_under_the_prior_the_gate_does_not_see_the_ad_nor_the_experts_the_request(prior_steps: int | None) -> None:
    mlr = build(MlrConfig(kind="mlr", pieces=2, std=0.5, prior=True, prior_steps=prior_steps), SCHEMA)
    assert isinstance(mlr, Mlr)
    batch, other = random_batch(6, 4, 7, seed=0), random_batch(6, 4, 7, seed=1)
    people = replace(batch, ads=other.ads, ad_numbers=other.ad_numbers)
    for training in (True, False):
        mlr.train(training)
        with torch.no_grad():
            (gate, expert), (same_gate, _), (_, same_expert) = (mlr.scores(each) for each in (batch, people, replace(
                other, ads=batch.ads, ad_numbers=batch.ad_numbers)))  # fmt: skip
        torch.testing.assert_close(gate, same_gate)
        torch.testing.assert_close(expert, same_expert)
        assert gate.std() > 0.1
        assert expert.std() > 0.1


def test_steps_under_the_prior_need_the_prior() -> None:
    with pytest.raises(ValidationError, match="prior_steps is 5, but prior is false"):
        MlrConfig(kind="mlr", prior_steps=5)


def test_four_pieces_tell_a_diamond_from_the_rest_of_its_square_and_lr_cannot() -> None:
    train, test = impressions(points(1_000, seed=1)), impressions(points(4_000, seed=2))
    right = {}
    for name, config in NETWORKS.items():
        torch.manual_seed(0)
        network = fit(build(config, SQUARE), train, 300)
        with torch.no_grad():
            right[name] = float(((network(test) > 0) == (test.labels > 0)).float().mean())
    assert right["lr"] < 0.6
    assert right["mlr"] > 0.95
