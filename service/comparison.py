"""How far two bundles are apart on the same requests: ads in common, order of scores, distribution of scores."""

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

Floats = npt.NDArray[np.float64]
EDGES = np.arange(-9.0, 3.01, 0.5)
"""Log-odds between the bins of scores: pCTR from 0.0001 to 0.95, each bin 1.65 times the odds of the one below. Fixed,
so that indices of different hours and processes are of the same bins."""
FLOOR = 0.5
"""Added to every bin: an empty one would make the index infinite."""


class ShadowOut(TypedDict):
    """What the shadow made of requests in this process, since it is the shadow. Means are null before the first."""

    bundle_id: str
    share: float
    """Of the requests that the control answered in full."""
    ranked: int
    dropped: int
    """For want of spare time."""
    refused: int
    """With fields that the shadow's bundle does not offer."""
    failed: int
    overlap: float | None
    """Mean share of the ads shown that the shadow would have shown too."""
    rank_correlation: float | None
    """Mean of Spearman's, of the scores of the ads shown."""
    psi: float | None
    """Population stability index of those scores."""
    ms: float | None
    """Mean of all stages together."""
    live_ms: float | None
    """The same, of the same requests, as they were served."""


def overlap(shown: Collection[object], other: Collection[object]) -> float:
    """The share of what was shown that is among the other's ads too. ValueError when nothing was shown."""
    if not shown:
        raise ValueError("nothing was shown: there is no share of it")
    return len(set(shown) & set(other)) / len(set(shown))


def rank_correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's rank correlation of two float64[n], equals at their mean rank; None for fewer than three pairs of
    finite numbers, or where one side is constant."""
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = _ranks(a[finite]), _ranks(b[finite])
    if len(x) < 3 or not (spread := float(x.std() * y.std())):
        return None
    return float(((x - x.mean()) * (y - y.mean())).mean() / spread)


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def mean_shift(expected: npt.ArrayLike, found: npt.ArrayLike) -> float:
    """Mean |difference| of paired scores ÷ the mean of those expected; 0 for no pairs."""
    one, two = np.asarray(expected, dtype=np.float64), np.asarray(found, dtype=np.float64)
    if not one.size:
        return 0.0
    return float(np.abs(one - two).mean() / max(float(one.mean()), 1e-12))


def binned(scores: npt.ArrayLike) -> Floats:
    """How many of the probabilities, all finite, are in each bin."""
    inside = np.clip(np.asarray(scores, dtype=np.float64), 1e-12, 1 - 1e-12)
    bins = np.searchsorted(EDGES, np.log(inside / (1 - inside)))
    return np.bincount(bins, minlength=len(EDGES) + 1).astype(np.float64)


def psi(expected: Floats, found: Floats) -> float:
    """Population stability index of two counts by bins: the sum over bins of (p - q) ln(p / q) (Siddiqi, Credit Risk
    Scorecards, 2006). 0: alike; by its custom above 0.1 a small shift, above 0.25 a large one."""
    shares = np.stack((expected, found)) + FLOOR
    p, q = shares / shares.sum(axis=1, keepdims=True)
    return float(((p - q) * np.log(p / q)).sum())


class ScoreShift:
    """Counts of the scores that two bundles gave the same ads."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, len(EDGES) + 1))

    def add(self, shown: Floats, other: Floats) -> None:
        """Probabilities float64[n] of the same ads; pairs with one that is not finite are left out."""
        finite = np.isfinite(shown) & np.isfinite(other)
        self.counts[0] += binned(shown[finite])
        self.counts[1] += binned(other[finite])

    @property
    def psi(self) -> float:
        """See psi."""
        return psi(self.counts[0], self.counts[1])
