"""Embeddings share one arena, Dice follows its formula, numbers and multi-valued fields enter as stated."""

import numpy as np
import pytest
import torch

from models.networks.activations import Activation
from models.networks.dice import Dice
from models.networks.encoder import SideEncoder
from models.networks.layers import Arena, Mlp
from tests.models.world import SCHEMA, random_batch


def test_tables_of_the_arena_do_not_overlap_and_padding_is_zero() -> None:
    arena = Arena(SCHEMA, 4, 0.1)
    sizes = {"city": 20, "tab": 5, "ad": 50, "tags": 9, "buckets:price": 4}
    seen: set[int] = set()
    for table, size in sizes.items():
        ids = torch.arange(size)
        rows = arena.rows(ids, torch.tensor(arena.starts[table])).tolist()
        assert rows[0] == 0, "padding of every table is row 0"
        assert seen.isdisjoint(rows[1:])
        seen |= set(rows[1:])
    assert seen == set(range(1, len(arena.weight)))
    assert arena.weight[0].abs().sum() == 0
    unknown = [start + 1 for start in arena.starts.values()]
    assert arena.weight[unknown].abs().sum() == 0, "an unknown value starts as the average one"
    known = [row for row in range(1, len(arena.weight)) if row not in unknown]
    assert arena.weight[known].abs().min() > 0


def test_padding_gets_no_gradient() -> None:
    arena = Arena(SCHEMA, 4, 0.1)
    encoder = SideEncoder(arena, SCHEMA.ad, ("ad", "tags"))
    encoder(arena, torch.tensor([[3, 2, 0, 0]])).sum().backward()
    assert arena.weight.grad is not None
    assert arena.weight.grad[0].abs().sum() == 0
    assert arena.weight.grad.abs().sum() > 0


def test_a_side_is_its_embeddings_with_several_values_averaged_then_its_numbers() -> None:
    arena = Arena(SCHEMA, 4, 0.1)
    torch.nn.init.normal_(arena.weight)
    with torch.no_grad():
        arena.weight[0].zero_()
    encoder = SideEncoder(arena, SCHEMA.ad)
    ids, numbers = torch.tensor([[7, 3, 5, 0, 2]]), torch.tensor([[0.5]])
    row = {table: arena.weight[1 + start :] for table, start in arena.starts.items()}  # id 1 first
    expected = torch.cat(
        [row["ad"][6], (row["tags"][2] + row["tags"][4]) / 2, row["buckets:price"][1], torch.tensor([0.5])]
    )
    torch.testing.assert_close(encoder(arena, ids, numbers)[0], expected)
    assert encoder.dimension == len(expected)


def test_dice_is_the_papers_formula() -> None:
    dice = Dice(3)
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.0, 0.3, -0.2]))
    x = torch.randn(200, 3) * torch.tensor([1.0, 5.0, 0.1]) + 2
    dice.train()
    found = dice(x)
    p = torch.sigmoid((x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-8))
    torch.testing.assert_close(found, p * x + (1 - p) * dice.alpha * x)


def test_dice_has_the_gradient_of_its_formula() -> None:
    dice = Dice(3).double()
    with torch.no_grad():
        dice.alpha.copy_(torch.tensor([0.0, 0.3, -0.2]))
    x = torch.randn(4, 5, 3, dtype=torch.float64, requires_grad=True)
    mean, variance = x.flatten(0, 1).mean(0), x.flatten(0, 1).var(0, correction=0)
    p = torch.sigmoid((x - mean) / torch.sqrt(variance + dice.epsilon))
    weight = torch.randn_like(x)
    expected = torch.autograd.grad(((p * x + (1 - p) * dice.alpha * x) * weight).sum(), [x, dice.alpha])
    found = torch.autograd.grad((dice(x) * weight).sum(), [x, dice.alpha])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_dice_averages_the_moments_of_its_batches() -> None:
    dice, x = Dice(2), torch.randn(50, 2) * torch.tensor([3.0, 0.01]) + 5
    dice(x)
    torch.testing.assert_close(dice.mean, x.mean(0))
    torch.testing.assert_close(dice.variance, x.var(0, correction=0), rtol=1e-4, atol=0)


def test_dice_uses_running_averages_when_evaluated() -> None:
    dice = Dice(2, momentum=0.5)
    for shift in (0.0, 1.0, 5.0):
        dice(torch.tensor([[2.0, 4.0], [4.0, 8.0]]) + shift)
    # a plain mean of the first 1/momentum batches, (3 + 4) / 2, then a moving one
    np.testing.assert_allclose(dice.mean.numpy(), [0.5 * 3.5 + 0.5 * 8.0, 0.5 * 6.5 + 0.5 * 11.0])
    dice.eval()
    one = dice(torch.tensor([[1.0, 1.0]]))
    torch.testing.assert_close(one, dice(torch.tensor([[1.0, 1.0], [50.0, 9.0]]))[:1])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("relu", [0.0, 3.0]), ("prelu", [-0.5, 3.0]), ("sigmoid", [1 / (1 + np.e**2), 1 / (1 + np.e**-3)])],
)
def test_activations(kind: str, expected: list[float]) -> None:
    found = Activation(kind, 2)(torch.tensor([-2.0, 3.0]))
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-6)


def test_mlp_is_linear_activation_linear() -> None:
    mlp = Mlp(3, (4,), 2, "relu", 0.5).eval()
    x = torch.randn(5, 3)
    first, out = mlp.layers[0], mlp.out
    assert isinstance(first, torch.nn.Linear)
    expected = torch.relu(x @ first.weight.T + first.bias) @ out.weight.T + out.bias
    torch.testing.assert_close(mlp(x), expected)


def test_one_gather_gives_what_many_give() -> None:
    arena = Arena(SCHEMA, 4, 0.1)
    ids = [torch.tensor([[7, 3], [0, 2]]), torch.zeros(0, 2, dtype=torch.int64), torch.tensor([[[1, 0]]])]
    asked = [(each, torch.tensor([0, 5]), tuple(arena.starts)[:2]) for each in ids]
    weights = [torch.randn(*each.shape, 4) for each in ids]

    def gradient(looked_up: list[torch.Tensor]) -> torch.Tensor:
        total = sum((found * weight).sum() for found, weight in zip(looked_up, weights, strict=True))
        assert isinstance(total, torch.Tensor)
        return torch.autograd.grad(total, arena.weight)[0]

    many = [arena(*each) for each in asked]
    for one, other in zip(arena.together(asked), many, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(gradient(arena.together(asked)), gradient(many))


def test_batches_of_the_test_world_have_an_empty_history() -> None:
    assert random_batch(3, 2, 5).histories["clicks"][0].abs().sum() == 0


def test_a_behaviours_fields_stand_in_the_order_of_its_history() -> None:
    """FeatureSchema.history_columns gives ids in the history's order, which need not be the schema's."""
    arena = Arena(SCHEMA, 4, 0.1)
    forward, backward = (SideEncoder(arena, SCHEMA.ad, names) for names in (("ad", "tags"), ("tags", "ad")))
    one, two = forward(arena, torch.tensor([[7, 3, 5, 0]])), backward(arena, torch.tensor([[3, 5, 0, 7]]))
    torch.testing.assert_close(torch.cat([one[:, 4:], one[:, :4]], dim=1), two)
    assert two.abs().sum() > 0


def test_dice_learns_nothing_from_a_batch_without_behaviours() -> None:
    dice = Dice(2)
    dice(torch.randn(50, 4, 2) + 3)
    mean, variance, batches = dice.mean.clone(), dice.variance.clone(), dice.batches.clone()
    assert dice(torch.zeros(0, 2)).shape == (0, 2)
    assert torch.equal(dice.mean, mean)
    assert torch.equal(dice.variance, variance)
    assert torch.equal(dice.batches, batches)
