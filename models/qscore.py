"""Qscore: one static number an ad, its smoothed click-through rate.

    qscore(ad) = (clicks + m·p) / (impressions + m),   p the overall rate, m the prior's strength

m maximises the likelihood of the ads' clicks under a beta-binomial with mean p (empirical Bayes): ads that differ much
get a small m, ads that look alike a large one.

Continued from an earlier Qscore, each ad has a p of its own: its earlier score, times one factor for all ads that makes
the expected clicks those of the new data (what is shown because it ranks high is clicked more often). m then says how
many impressions the earlier score is worth: many where it still foretells the clicks, few where it does not.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from bundle.schema import FIRST_KNOWN
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.networks.config import QscoreConfig


@dataclass(frozen=True, slots=True)
class Qscore:
    """The table and the prior it was smoothed with."""

    scores: npt.NDArray[np.float32]
    """One a catalogue row; never shown ads have the prior's mean, row 0 (padding) has 0."""
    mean: float
    strength: float


def fit_qscore(config: QscoreConfig, data: PreparedData) -> Qscore:
    """Count clicks and impressions of the training split and smooth them."""
    shown, clicked = _counted(data)
    mean = float(clicked.sum() / shown.sum())
    return _smoothed(config, shown, clicked, np.full(len(shown), mean), mean)


def continue_qscore(config: QscoreConfig, data: PreparedData, before: npt.NDArray[np.float32]) -> Qscore:
    """The same, going on from `before`: the earlier score of each catalogue row, of an ad it did not know its prior's
    mean."""
    shown, clicked = _counted(data)
    level = clicked.sum() / (shown @ before.astype(np.float64))
    prior = np.clip(before.astype(np.float64) * level, 1e-6, 1 - 1e-6)
    return _smoothed(config, shown, clicked, prior, float(clicked.sum() / shown.sum()))


def _counted(data: PreparedData) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Impressions and clicks of each catalogue row."""
    rows = len(data.ads.fields)
    shown, clicked = np.zeros(rows), np.zeros(rows)
    for batch in batches(data, "train", 65_536):
        shown += np.bincount(batch.rows, minlength=rows)
        clicked += np.bincount(batch.rows, weights=batch.labels.numpy(), minlength=rows)
    total = shown.sum()
    if not 0 < clicked.sum() < total:
        raise DataError(
            f"{data.folder}: train has {clicked.sum():.0f} clicks in {total:.0f} impressions, no rate to smooth"
        )
    return shown, clicked


def _smoothed(
    config: QscoreConfig,
    shown: npt.NDArray[np.float64],
    clicked: npt.NDArray[np.float64],
    prior: npt.NDArray[np.float64],
    mean: float,
) -> Qscore:
    known = slice(FIRST_KNOWN, None)
    strength = config.strength or fit_strength(shown[known], clicked[known], prior[known])
    scores = ((clicked + strength * prior) / (shown + strength)).astype(np.float32)
    scores[0] = 0.0
    return Qscore(scores, mean, strength)


def fit_strength(
    shown: npt.NDArray[np.float64], clicked: npt.NDArray[np.float64], means: float | npt.NDArray[np.float64]
) -> float:
    """The m in [0.01, 10^6] that maximises Σ log B(clicks + mp, rest + m(1-p)) / B(mp, m(1-p)); p is one number, or one
    an ad."""
    n, c = shown[shown > 0], clicked[shown > 0]
    mean = np.broadcast_to(means, shown.shape)[shown > 0]

    def loss(log_m: float) -> float:
        a, b = np.exp(log_m) * mean, np.exp(log_m) * (1 - mean)
        return -float(np.sum(log_beta(c + a, n - c + b) - log_beta(a, b)))

    found = minimize_scalar(loss, bounds=(np.log(1e-2), np.log(1e6)), method="bounded")
    return float(np.exp(found.x))


def log_beta(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """log B(a, b). scipy's betaln is infinite for some sums near 170 where denormals are zero, as in training."""
    result: npt.NDArray[np.float64] = gammaln(a) + gammaln(b) - gammaln(a + b)
    return result
