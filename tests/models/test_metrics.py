import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from models import metrics

Arrays = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64]]


@st.composite
def impressions(draw: st.DrawFn) -> Arrays:
    """Labels, scores with many ties, and users."""
    n = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    users = draw(st.lists(st.integers(-3, 6), min_size=n, max_size=n))
    return np.array(labels), np.array(scores) / 12.0, np.array(users)


def auc_by_counting(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> float:
    positive, negative = scores[labels == 1], scores[labels == 0]
    won = sum(1.0 if p > q else 0.5 if p == q else 0.0 for p in positive for q in negative)
    return won / (len(positive) * len(negative))


@given(impressions())
def test_auc_equals_counting_pairs_and_scikit_learn(rows: Arrays) -> None:
    labels, scores, _ = rows
    assume(0 < labels.sum() < labels.size)
    assert metrics.auc(labels, scores) == pytest.approx(auc_by_counting(labels, scores), abs=1e-12)
    assert metrics.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)


@given(impressions())
def test_gauc_equals_a_loop_over_users(rows: Arrays) -> None:
    labels, scores, users = rows
    parts = [
        (auc_by_counting(labels[users == u], scores[users == u]), int((users == u).sum()))
        for u in np.unique(users)
        if 0 < labels[users == u].sum() < (users == u).sum()
    ]
    found = metrics.gauc(labels, scores, users)
    assert (found.users, found.rows) == (len(parts), sum(n for _, n in parts))
    if not parts:
        assert math.isnan(found.value)
    else:
        assert found.value == pytest.approx(sum(a * n for a, n in parts) / sum(n for _, n in parts), abs=1e-12)


@given(impressions(), st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_rows(rows: Arrays, random: object) -> None:
    labels, scores, users = rows
    assume(0 < labels.sum() < labels.size)
    order = np.arange(labels.size)
    random.shuffle(order)  # type: ignore[attr-defined]
    before, after = metrics.summary(labels, scores, users), metrics.summary(labels[order], scores[order], users[order])
    assert after == pytest.approx(before, abs=1e-12, nan_ok=True)


def test_log_loss_equals_scikit_learn() -> None:
    random = np.random.default_rng(0)
    scores = random.uniform(0.001, 0.999, 500)
    labels = (random.random(500) < scores).astype(np.int8)
    assert metrics.log_loss(labels, scores) == pytest.approx(sklearn_metrics.log_loss(labels, scores), abs=1e-12)


def test_certain_and_wrong_costs_much_but_not_infinitely_much() -> None:
    assert metrics.log_loss([1, 0], [0.0, 0.0]) == pytest.approx(-math.log(1e-7) / 2, rel=1e-6)


def test_calibration_is_predicted_over_clicked() -> None:
    assert metrics.calibration([1, 0, 1, 0], [0.5, 0.5, 1.0, 1.0]) == pytest.approx(1.5)


def test_ece_of_two_bins_by_hand() -> None:
    # Lower half: predicted 0.1, 0.2, one click of two; upper half: 0.8, 0.9, both clicked.
    assert metrics.ece([0, 1, 1, 1], [0.1, 0.2, 0.8, 0.9], bins=2) == pytest.approx((0.7 + 0.3) / 4)


def test_ece_tells_true_probabilities_from_shifted_ones() -> None:
    random = np.random.default_rng(1)
    p = random.uniform(0.05, 0.6, 100_000)
    clicks = random.random(p.size) < p
    assert metrics.ece(clicks, p) < 0.01
    assert metrics.ece(clicks, p + 0.1) == pytest.approx(0.1, abs=0.01)


def test_equal_scores_share_a_bin() -> None:
    labels = np.array([1] * 50 + [0] * 50)
    assert metrics.ece(labels, np.full(100, 0.5)) == pytest.approx(0.0, abs=1e-12)


def test_gauc_ignores_what_is_constant_within_a_user() -> None:
    random = np.random.default_rng(2)
    users = np.repeat(np.arange(200), 20)
    rate = random.uniform(0.05, 0.95, 200)[users]
    clicks = random.random(users.size) < rate
    assert metrics.auc(clicks, rate) > 0.7
    assert metrics.gauc(clicks, rate, users).value == pytest.approx(0.5)


def test_groups_may_be_strings() -> None:
    assert metrics.gauc([1, 0, 1, 0], [0.9, 0.1, 0.1, 0.9], np.array(["a", "a", "b", "b"])) == metrics.Gauc(0.5, 2, 4)


def test_summary_has_every_metric() -> None:
    found = metrics.summary([1, 0, 0, 1], [0.9, 0.1, 0.6, 0.5], [7, 7, 8, 8])
    assert list(found) == ["auc", "gauc", "logloss", "calibration", "ece", "impressions", "users"]
    assert (found["auc"], found["gauc"], found["impressions"], found["users"]) == (0.75, 0.5, 4.0, 2.0)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "no impressions"),
        ([0, 1], [0.5], r"labels have shape \[2\], scores \[1\]"),
        ([0, 2], [0.5, 0.5], "labels must be 0 or 1"),
        ([0, 1], [0.5, math.nan], "1 of 2 scores are not finite"),
        ([0, 0], [0.5, 0.4], "there are 0 and 2"),
    ],
)
def test_auc_refuses(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.auc(labels, scores)


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match=r"range from -1 to 0\.5"):
        metrics.log_loss([0, 1], [-1.0, 0.5])
    with pytest.raises(ValueError, match="there is none in 2 impressions"):
        metrics.calibration([0, 0], [0.1, 0.5])
    with pytest.raises(ValueError, match="bins is 0"):
        metrics.ece([0, 1], [0.1, 0.5], bins=0)
    with pytest.raises(ValueError, match=r"groups have shape \[1\]"):
        metrics.gauc([0, 1], [0.1, 0.5], [1])
