"""L1 and L2,1 by a proximal method, which leaves true zeros.

    prox(W) = argmin_V  ½‖V − W‖² + a·Σ|v| + b·Σ over rows ‖v_row‖

First every weight is pulled towards zero by a and stays there when it gets there, then every row is shortened by b
(Friedman, Hastie and Tibshirani, arXiv 1001.0736: the sparse group lasso). A row holds all weights of one feature, so
by L2,1 they leave together. The step is decoupled from the gradient's scale, as weight decay is in AdamW: with
a = learning rate · l1, a weight ends at zero when the mean of its gradients is less than l1 times their root mean
square.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def shrink_(weight: Tensor, a: float, b: float) -> None:
    """prox in place on [rows, k]; a, b ≥ 0."""
    with torch.no_grad():
        if a:
            weight.copy_(F.softshrink(weight, a))
        if b:
            weight.mul_((1 - b / weight.norm(dim=1, keepdim=True)).clamp(min=0))  # a row of zeros: -inf, so 0


def nonzero(weights: Iterable[Tensor]) -> dict[str, float]:
    """Weights and rows that are not exactly zero, and all rows but the padding's."""
    found = torch.cat(list(weights)) != 0
    return {
        "model.rows": float(len(found) - 1),
        "model.nonzero_rows": float(found.any(dim=1).sum()),
        "model.nonzero_weights": float(found.sum()),
    }
