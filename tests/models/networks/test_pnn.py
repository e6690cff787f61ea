"""Both products against explicit sums over all pairs of fields, and a case by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.networks.pnn import InnerProducts, OuterProducts, Pnn
from tests.models.networks.plain import plain_fields
from tests.models.networks.small import small
from tests.models.world import random_batch

ONE = torch.tensor([0])


def listed(products: InnerProducts | OuterProducts, fields: list[Tensor]) -> Tensor:
    """l_p [h] by a loop over all pairs of fields, each field with itself too, as in the paper's sums."""
    total = torch.zeros(1)
    for i, one in enumerate(fields):
        for j, other in enumerate(fields):
            if isinstance(products, InnerProducts):
                total = total + products.theta[:, i] * products.theta[:, j] * (one @ other)
            else:
                total = total + (products.weight * torch.outer(one, other)).sum((1, 2))
    return total


@pytest.mark.parametrize("name", ["pnn-inner", "pnn-outer"])
def test_equals_a_loop_over_pairs_of_fields(name: str) -> None:
    pnn, batch = small(name), random_batch(3, 2, 5)
    assert isinstance(pnn, Pnn)
    assert isinstance(pnn.products, InnerProducts | OuterProducts)
    with torch.no_grad():
        found = pnn(replace(batch, positions=torch.zeros(6, dtype=torch.int64)))
        at_first = 0 if pnn.position is None else pnn.position.weight[0, 0]
        for m in range(6):
            fields = plain_fields(pnn.vectors, pnn.arena, batch, m)
            x = pnn.fields(torch.cat(fields)) + listed(pnn.products, fields)
            expected = pnn.rest(pnn.activation(x.unsqueeze(0)))[0, 0] + at_first
            torch.testing.assert_close(found[m], expected, rtol=0, atol=1e-5)


def test_inner_by_hand() -> None:
    """Request (1, 2), ad (3, -1), θ = (2, 1) and (0, 1): ‖(5, 3)‖² = 34 and ‖(3, -1)‖² = 10."""
    inner = InnerProducts(1, 1, 2)
    with torch.no_grad():
        inner.theta.copy_(torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
        found = inner(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]), ONE)
    assert found.tolist() == [[34.0, 10.0]]


def test_outer_by_hand() -> None:
    """Request (1, 2), ad (3, -1): f = (4, 1), f fᵀ = [[16, 4], [4, 1]]; of a W, both halves count."""
    outer = OuterProducts(2, 2)
    with torch.no_grad():
        outer.weight.copy_(torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 0.0]]]))
        found = outer(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -1.0]]]), ONE)
    assert found.tolist() == [[17.0, 16.0]]
