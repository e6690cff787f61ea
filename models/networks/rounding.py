"""Embeddings as they are served in fewer bytes: a network whose tables are stored as fp16, int8 or int4 computes with
the numbers that are left, wherever it is trained or measured.

The same function as bundle/rounding.py, to the bit, of any number of rows at once. Gradients pass it as if it was not
there (the straight-through estimator, arXiv 1308.3432, section 4), so training goes on behind it.
"""

import torch
from torch import Tensor

from bundle.precision import Stored
from bundle.rounding import BITS, SMALLEST


def rounded(values: Tensor, stored: Stored) -> Tensor:
    """`values` [..., d] as they are stored, each row [d] for itself."""
    if stored == "fp32":
        return values
    with torch.no_grad():
        kept = values.half().float() if stored == "fp16" else _in_steps(values, 2 ** (BITS[stored] - 1))
    return kept + (values - values.detach()) if values.requires_grad else kept


def _in_steps(values: Tensor, steps: int) -> Tensor:
    low, high = torch.aminmax(values, dim=-1, keepdim=True)
    high, low = high.clamp(min=0.0), low.clamp(max=0.0)
    scales = torch.where(high >= -low, high, low) / -steps
    scales = torch.where(scales.abs() < SMALLEST, SMALLEST, scales)
    return (values / scales).round_().clamp_(-steps, steps - 1).mul_(scales)
