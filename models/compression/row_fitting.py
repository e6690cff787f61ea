"""Where shared rows start: as near as they come to the rows they replace.

    min over w of Σ_i f_i ‖combine(w[rows of i]) − e_i‖²      e_i the row of id i, f_i how often it is looked up

one row an id        the mean of its ids' rows, weighted by f: exact
a sum of rows        least squares, by conjugate gradients on the normal equations
(1 + q) ⊙ r          alternating least squares, a rank-1 matrix for each dimension, from q = 0
"""

import torch
from torch import Tensor

from bundle.schema import FIRST_KNOWN, UNKNOWN
from models.networks.tables import CompressedTable

UNSEEN = 1e-6
"""Weight of an id that was never looked up: a row of such ids alone starts at their plain mean."""
RIDGE = 1e-4
"""Weight of ‖w‖² beside rows that are looked up once on average."""
ITERATIONS = 50
ROUNDS = 10


def fit_rows(table: CompressedTable, values: Tensor, lookups: Tensor) -> Tensor:
    """The weight [rows, r] of a table for the rows [size, r] of its ids, each looked up so often, int64[size]."""
    ids = torch.arange(table.size)
    rows, wanted = table.rows(ids), values.double()
    weights = lookups.double() + UNSEEN
    if rows.shape[1] == 1:
        found = _means(rows[:, 0], wanted, weights, len(table.weight))
    else:
        known = slice(FIRST_KNOWN, None)
        weights = weights[known] / weights[known].mean()
        fit = _product if table.config.method == "quotient_remainder" and table.config.combine == "product" else _sum
        found = fit(rows[known], wanted[known], weights, len(table.weight))
        found[UNKNOWN] = wanted[UNKNOWN]
    return found.float()


def _means(row: Tensor, wanted: Tensor, weights: Tensor, count: int) -> Tensor:
    total = torch.zeros(count, dtype=torch.float64).index_add(0, row, weights)
    sums = torch.zeros(count, wanted.shape[1], dtype=torch.float64).index_add(0, row, weights.unsqueeze(1) * wanted)
    return sums / total.clamp(min=1e-300).unsqueeze(1)


def _sum(rows: Tensor, wanted: Tensor, weights: Tensor, count: int) -> Tensor:
    """(AᵀFA + λ) w = AᵀF e for all columns at once, A the matrix of which rows an id has."""
    each = weights.unsqueeze(1)

    def gathered(values: Tensor) -> Tensor:
        flat = values.unsqueeze(1).expand(-1, rows.shape[1], -1).flatten(0, 1)
        return torch.zeros(count, values.shape[1], dtype=torch.float64).index_add(0, rows.flatten(), flat)

    def product(w: Tensor) -> Tensor:
        return gathered(each * w[rows].sum(1)) + RIDGE * w

    w = torch.zeros(count, wanted.shape[1], dtype=torch.float64)
    residual = gathered(each * wanted)
    direction, size = residual.clone(), residual.square().sum(0)
    for _ in range(ITERATIONS):
        moved = product(direction)
        step = size / (direction * moved).sum(0).clamp(min=1e-300)
        w, residual = w + step * direction, residual - step * moved
        before, size = size, residual.square().sum(0)
        direction = residual + size / before.clamp(min=1e-300) * direction
    return w


def _product(rows: Tensor, wanted: Tensor, weights: Tensor, count: int) -> Tensor:
    quotient, remainder = rows[:, 0], rows[:, 1]
    each = weights.unsqueeze(1)
    w = torch.zeros(count, wanted.shape[1], dtype=torch.float64)

    def solved(row: Tensor, factor: Tensor, target: Tensor) -> Tensor:
        """x of each row: min Σ f (factor · x − target)² + λ x²."""
        above = torch.zeros_like(w).index_add(0, row, each * factor * target)
        return above / (torch.zeros_like(w).index_add(0, row, each * factor.square()) + RIDGE)

    for _ in range(ROUNDS):
        factor = 1 + w[quotient]
        w = torch.where(_held(remainder, count), solved(remainder, factor, wanted), w)
        factor = w[remainder]
        w = torch.where(_held(quotient, count), solved(quotient, factor, wanted - factor), w)
    return w


def _held(rows: Tensor, count: int) -> Tensor:
    """bool[count, 1]: the rows that are there."""
    held = torch.zeros(count, 1, dtype=torch.bool)
    held[rows] = True
    return held
