"""Making predicted probabilities true: Platt scaling, isotonic regression, and undoing negative down-sampling.

Platt          logit' = a·logit + b, by maximum likelihood, with Platt's targets (c + 1) / (c + 2) and 1 / (m + 2) for
               c clicks and m non-clicks (Platt 1999, Probabilistic Outputs for Support Vector Machines, 2.2)
isotonic       the rising step function nearest to the clicks (Zadrozny and Elkan, KDD 2002); its steps' middles are
               joined by lines in logits, so that no two scores become equal and no order changes
down-sampling  a share w of non-clicks was kept: p' = p / (p + (1 - p) / w), logit' = logit + ln w
               (He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, 6.3)
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize
from sklearn.isotonic import IsotonicRegression

from bundle.calibration import Calibration
from models.metrics import FLOOR, Float64

BINS = 200
"""At most so many scores, of equal mass, are what isotonic regression sees: a step stands for 0.5 % of the rows."""
MOST_OFFSET = 50.0
"""Of logits whose size FLOOR bounds at 16: beyond it every probability is 0 or 1."""


class CalibrationError(Exception):
    """Nothing to calibrate with. The message says why."""


def fit_platt(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Calibration:
    """`labels` [n] of 0 and 1, `scores` [n] probabilities. CalibrationError when the slope is not above 0: the scores
    do not rise with the clicks."""
    y, x = _checked(labels, scores)
    clicks, rest = y.sum(), len(y) - y.sum()
    target = np.where(y == 1, (clicks + 1) / (clicks + 2), 1 / (rest + 2))

    def loss(parameters: Float64) -> tuple[float, Float64]:
        z = parameters[0] * x + parameters[1]
        error = 1 / (1 + np.exp(-z)) - target
        value = np.mean(np.logaddexp(0.0, z) - target * z)
        return float(value), np.array([np.mean(error * x), np.mean(error)])

    slope, offset = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    if slope <= 0:
        raise CalibrationError(f"Platt's slope is {slope:.3g}: scores do not rise with the clicks")
    return Calibration(method="platt", logits=(0.0,), calibrated=(float(offset),), slope=float(slope))


def fit_level(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Calibration:
    """Platt scaling of slope 1: the offset at which the scores add up to the clicks. Some clicks suffice, and some rows
    without one; a slope needs scores that differ much."""
    y, x = _checked(labels, scores)
    offset = brentq(lambda b: float(np.mean(1 / (1 + np.exp(-(x + b))) - y)), -MOST_OFFSET, MOST_OFFSET)
    return Calibration(method="platt", logits=(0.0,), calibrated=(float(offset),), slope=1.0)


def fit_isotonic(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Calibration:
    """`labels` [n] of 0 and 1, `scores` [n] probabilities. Outside of the fitted range the correction stays as it is at
    its ends (slope 1)."""
    y, x = _checked(labels, scores)
    order = np.argsort(x, kind="stable")
    pieces = [piece for piece in np.array_split(order, min(BINS, len(order))) if len(piece)]
    size = np.array([len(piece) for piece in pieces], dtype=np.float64)
    middle = np.array([x[piece].mean() for piece in pieces])
    rate = np.array([y[piece].mean() for piece in pieces])
    fitted: Float64 = IsotonicRegression().fit_transform(middle, rate, sample_weight=size)
    steps = np.flatnonzero(np.concatenate(([True], np.diff(fitted) > 0)))
    weight = np.add.reduceat(size, steps)
    place = np.add.reduceat(size * middle, steps) / weight
    least = 0.5 / len(y)  # below any step's rate but 0, above none but 1: what is finite and still rises
    height = logits_of(np.clip(fitted[steps], least, 1 - least), floor=0.0)
    return Calibration(method="isotonic", logits=tuple(place.tolist()), calibrated=tuple(height.tolist()), slope=1.0)


def undo_downsampling(kept: float) -> Calibration:
    """`kept`: the share of non-clicks that training saw, in (0, 1]. CalibrationError otherwise."""
    if not 0 < kept <= 1:
        raise CalibrationError(f"the share of non-clicks kept is {kept:g}, it must be above 0 and at most 1")
    return Calibration(method="downsampling", logits=(0.0,), calibrated=(float(np.log(kept)),), slope=1.0)


def calibrated(calibration: Calibration, scores: npt.ArrayLike) -> Float64:
    """Probabilities [n] -> corrected probabilities [n]."""
    return 1 / (1 + np.exp(-calibration.of(logits_of(np.asarray(scores, dtype=np.float64)))))


def logits_of(p: Float64, floor: float = FLOOR) -> Float64:
    """ln(p / (1 - p)), probabilities kept `floor` from 0 and 1."""
    p = np.clip(p, floor, 1 - floor)
    found: Float64 = np.log(p) - np.log1p(-p)
    return found


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Float64, Float64]:
    y, p = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not 0 < y.sum() < len(y):
        raise CalibrationError(
            f"calibrating needs clicks and non-clicks, there are {y.sum():.0f} clicks in {len(y)} rows"
        )
    return y, logits_of(p)
