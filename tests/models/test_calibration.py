"""Corrections recover the truth, leave every order, and come out as scikit-learn's."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.calibration import (
    BINS,
    CalibrationError,
    calibrated,
    fit_isotonic,
    fit_level,
    fit_platt,
    logits_of,
    undo_downsampling,
)
from models.metrics import auc, calibration, ece, log_loss
from models.reliability import reliability

Float64 = npt.NDArray[np.float64]


def logistic(x: Float64) -> Float64:
    return 1 / (1 + np.exp(-x))


def clicks(p: Float64, seed: int = 0) -> Float64:
    return (np.random.default_rng(seed).random(len(p)) < p).astype(float)


def spread(n: int, seed: int = 1) -> Float64:
    return np.random.default_rng(seed).normal(-1.5, 1.5, n)


def test_platt_finds_slope_and_offset() -> None:
    z = spread(200_000)
    found = fit_platt(clicks(logistic(0.6 * z - 0.8)), logistic(z))
    assert (found.slope, found.calibrated[0]) == pytest.approx((0.6, -0.8), abs=0.02)


def test_platt_is_logistic_regression_where_there_are_many_rows() -> None:
    z = spread(50_000)
    y = clicks(logistic(1.7 * z + 0.4))
    found = fit_platt(y, logistic(z))
    other = LogisticRegression(C=1e9, tol=1e-8).fit(z[:, None], y)
    assert (found.slope, found.calibrated[0]) == pytest.approx((other.coef_[0, 0], other.intercept_[0]), abs=2e-3)


def test_the_level_is_found_where_a_slope_is_not() -> None:
    random = np.random.default_rng(3)
    logits = random.normal(0, 0.05, 400)
    labels = (random.random(400) < 1 / (1 + np.exp(-(logits - 2.0)))).astype(np.float64)
    found = fit_level(labels, 1 / (1 + np.exp(-logits)))
    assert found.slope == 1.0
    assert calibrated(found, 1 / (1 + np.exp(-logits))).mean() == pytest.approx(labels.mean(), abs=1e-6)
    assert found.calibrated[0] == pytest.approx(-2.0, abs=0.4)


def test_isotonic_regression_recovers_a_bent_curve_that_platt_cannot() -> None:
    z = spread(200_000)
    truth = np.where(z < -1.5, 0.05, logistic(2 * z + 1.0))  # flat, then steep
    valid, test = slice(0, 100_000), slice(100_000, None)
    y = clicks(np.maximum.accumulate(truth[np.argsort(z)])[np.argsort(np.argsort(z))])
    bent, straight = fit_isotonic(y[valid], logistic(z[valid])), fit_platt(y[valid], logistic(z[valid]))
    after = calibrated(bent, logistic(z[test]))
    assert ece(y[test], after) < 0.005
    assert ece(y[test], calibrated(straight, logistic(z[test]))) > 0.01
    assert log_loss(y[test], after) < log_loss(y[test], calibrated(straight, logistic(z[test])))
    assert 0.98 < calibration(y[test], after) < 1.02


def test_isotonic_steps_are_those_of_scikit_learn() -> None:
    z = np.sort(spread(BINS, seed=3))
    y = clicks(logistic(z), seed=3)
    found = fit_isotonic(y, logistic(z))
    steps = np.unique(IsotonicRegression().fit_transform(z, y))
    np.testing.assert_allclose(logistic(np.array(found.calibrated)), np.clip(steps, 0.5 / BINS, 1 - 0.5 / BINS))


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_no_order_changes_beyond_what_was_fitted_either(fit: object) -> None:
    assert callable(fit)
    z = spread(5_000)
    found = fit(clicks(logistic(0.5 * z)), logistic(z))
    wide = np.linspace(-14, 14, 2_001)
    after = calibrated(found, logistic(wide))
    assert (np.diff(after) > 0).all()
    y = clicks(logistic(wide), seed=9)
    assert auc(y, after) == pytest.approx(auc(y, logistic(wide)), abs=1e-12)


def test_down_sampling_is_undone() -> None:
    """Non-clicks kept with probability w raise the odds by 1 / w; the correction is p / (p + (1 - p) / w)."""
    p, w = np.array([0.001, 0.2, 0.5, 0.9]), 0.1
    learnt = p / (p + (1 - p) * w)
    np.testing.assert_allclose(calibrated(undo_downsampling(w), learnt), p, rtol=1e-12)
    np.testing.assert_allclose(calibrated(undo_downsampling(w), learnt), learnt / (learnt + (1 - learnt) / w))
    np.testing.assert_allclose(calibrated(undo_downsampling(1.0), p), p)


@pytest.mark.parametrize("kept", [0.0, -1.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(kept: float) -> None:
    with pytest.raises(CalibrationError, match="must be above 0 and at most 1"):
        undo_downsampling(kept)


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic, fit_level])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_refused(fit: object, label: float) -> None:
    assert callable(fit)
    with pytest.raises(CalibrationError, match="needs clicks and non-clicks"):
        fit([label] * 5, [0.1, 0.2, 0.3, 0.4, 0.5])


def test_scores_against_the_clicks_are_refused() -> None:
    z = spread(1_000)
    with pytest.raises(CalibrationError, match="scores do not rise with the clicks"):
        fit_platt(clicks(logistic(-z)), logistic(z))


def test_certain_scores_have_finite_logits() -> None:
    assert np.isfinite(logits_of(np.array([0.0, 1.0]))).all()


def test_reliability_has_bins_of_equal_mass() -> None:
    predicted, clicked = reliability([0, 0, 1, 1, 1, 0], [0.1, 0.3, 0.8, 0.6, 0.5, 0.2], bins=3)
    np.testing.assert_allclose(predicted, [0.15, 0.4, 0.7])
    np.testing.assert_allclose(clicked, [0.0, 0.5, 1.0])
