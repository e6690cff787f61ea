"""Choosing the best ads: arrays in, positions out. Ties go to the lower row, non-finite scores go last."""

from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

SAMPLED = 4_000
SAMPLE = 1_000
MARGIN = 48
"""Places in the sorted sample: three standard deviations of where the median of SAMPLE values lies."""
LARGE = np.float32(80)
"""exp(80) is still a float32; the sigmoid of ±80 is 1 and 10^-35."""


def top(scores: npt.NDArray[Any], n: int) -> Rows:
    """Positions of the `n` largest scores, ascending. Of equal scores the earlier position is kept."""
    if n >= len(scores) or n <= 0:
        return np.arange(len(scores) if n > 0 else 0)
    clean = np.where(np.isfinite(scores), scores, scores.dtype.type(-np.inf))
    cut = _largest(clean, n)
    chosen = clean >= cut
    if surplus := int(np.count_nonzero(chosen)) - n:
        chosen[np.flatnonzero(clean == cut)[-surplus:]] = False
    return np.flatnonzero(chosen)


def _largest(values: npt.NDArray[Any], n: int) -> Any:
    """The n-th largest value.

    A sorted sample says between which two it must lie, and only those between them are looked at: 0.04 ms for 12,500
    values instead of 0.1. When the sample is wrong, all are.
    """
    size = len(values)
    if size >= SAMPLED:
        sample = np.sort(values[:: size // SAMPLE])
        middle = len(sample) * (1 - n / size)
        low, high = sample[max(0, int(middle) - MARGIN)], sample[min(len(sample) - 1, int(middle) + MARGIN)]
        between = values[(values >= low) & (values <= high)]
        rank = n - int(np.count_nonzero(values > high))
        if 1 <= rank <= len(between):
            values, n, size = between, rank, len(between)
    return np.partition(values, size - n)[size - n]


def best_first(scores: npt.NDArray[Any]) -> Rows:
    """Positions in order of falling score."""
    return np.argsort(np.where(np.isfinite(scores), -scores.astype(np.float64), np.inf), kind="stable")


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow; NaN stays NaN and an infinite logit becomes NaN: it is no probability."""
    x = np.where(np.isfinite(logits), logits, np.nan).astype(np.float64)
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def likelihood(logits: Scores) -> Scores:
    """`sigmoid` in float32, for choosing among 10^4 ads: 0.02 ms, in double precision 0.07."""
    x = np.where(np.isfinite(logits), logits, np.float32(np.nan))
    np.clip(x, -LARGE, LARGE, out=x)
    np.exp(-x, out=x)
    x += 1
    return np.divide(np.float32(1), x, out=x)


def count_non_finite(scores: npt.NDArray[Any]) -> int:
    """How many are NaN or infinite."""
    return int(np.count_nonzero(~np.isfinite(scores)))
