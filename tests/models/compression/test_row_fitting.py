"""Shared rows start at weighted means, at least squares, or at a rank-1 start."""

import numpy as np
import pytest
import torch

from models.compression.row_fitting import fit_rows
from models.networks.config import TableConfig
from models.networks.tables import CompressedTable

SIZE = 30


def table(**config: object) -> CompressedTable:
    return CompressedTable("ad", SIZE, 3, 0.5, TableConfig.model_validate(config))


def values(seed: int = 0) -> torch.Tensor:
    found = torch.randn(SIZE, 3, generator=torch.Generator().manual_seed(seed))
    found[0] = 0
    return found


def lookups(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 9, (SIZE,), generator=torch.Generator().manual_seed(seed))


def fitted(made: CompressedTable, wanted: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Vectors [size, d] of all ids after the fit."""
    with torch.no_grad():
        made.weight.copy_(fit_rows(made, wanted, weights))
        found: torch.Tensor = made(torch.arange(SIZE))
    return found


def test_a_bucket_is_the_mean_of_its_ids_by_frequency() -> None:
    made, wanted, weights = table(method="hash", rows=6), values(), lookups()
    found = fit_rows(made, wanted, weights)
    rows = made.rows(torch.arange(SIZE))[:, 0]
    for row in range(2, 8):
        ids = [i for i in range(SIZE) if rows[i] == row]
        w = weights[ids].double() + 1e-6
        torch.testing.assert_close(found[row], ((w @ wanted[ids].double()) / w.sum()).float())
    assert found[0].abs().sum() == 0


def test_ids_that_were_cut_start_as_the_unknown_between_them() -> None:
    made, wanted, weights = table(method="cut", rows=5), values(), lookups()
    made.prepare(weights)
    found = fitted(made, wanted, weights)
    rows = made.rows(torch.arange(SIZE))[:, 0]
    kept = rows >= 2
    assert int(kept.sum()) == 5
    assert int(weights[2:][~kept[2:]].max()) <= int(weights[kept].min())
    torch.testing.assert_close(found[kept], wanted[kept])
    shared = [i for i in range(SIZE) if rows[i] == 1]
    w = weights[shared].double() + 1e-6
    torch.testing.assert_close(found[1], ((w @ wanted[shared].double()) / w.sum()).float())


def test_a_cut_that_keeps_all_changes_nothing() -> None:
    made, wanted = table(method="cut", rows=SIZE - 2), values()
    made.prepare(lookups())
    torch.testing.assert_close(fitted(made, wanted, lookups()), wanted)


@pytest.mark.parametrize(
    "config",
    [{"method": "multi_hash", "rows": 8}, {"method": "quotient_remainder", "rows": 6, "combine": "sum"}],
)
def test_sums_are_least_squares(config: dict[str, object]) -> None:
    made, wanted, weights = table(**config), values(), lookups() + 1
    found = fitted(made, wanted, weights)
    design = np.zeros((SIZE - 2, len(made.weight)))
    for i, rows in enumerate(made.rows(torch.arange(2, SIZE)).tolist()):
        for row in rows:
            design[i, row] += 1
    root = np.sqrt(weights[2:].numpy())[:, None]
    best = np.linalg.lstsq(root * design, root * wanted[2:].numpy(), rcond=None)[0]
    np.testing.assert_allclose(found[2:].numpy(), design @ best, atol=2e-3)
    torch.testing.assert_close(found[1], wanted[1])


def test_a_product_that_can_be_exact_is() -> None:
    made = table(method="quotient_remainder", rows=7)
    q, r = 1 + 0.3 * torch.randn(4, 3), torch.randn(7, 3)
    wanted = values()
    known = torch.arange(SIZE - 2)
    wanted[2:] = q[known // 7] * r[known % 7]
    assert (fitted(made, wanted, torch.ones(SIZE)) - wanted).abs().max() < 1e-2


def test_a_product_fits_better_than_remainders_alone() -> None:
    made, wanted, weights = table(method="quotient_remainder", rows=7), values(), lookups() + 1
    found = fitted(made, wanted, weights)
    alone = made.weight.detach().clone()
    error = (weights[2:, None] * (found - wanted)[2:].square()).sum()
    remainder = torch.stack([wanted[2:][r::7].mul(weights[2:][r::7, None]).sum(0) for r in range(7)])
    remainder /= torch.stack([weights[2:][r::7].sum() for r in range(7)])[:, None]
    plain = (weights[2:, None] * (remainder[torch.arange(SIZE - 2) % 7] - wanted[2:]).square()).sum()
    assert error < 0.9 * plain
    assert alone[0].abs().sum() == 0
