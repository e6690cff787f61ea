"""Paired intervals: equal to the plain formulation, reproducible, and they cover the truth as often as they say."""

import numpy as np
import numpy.typing as npt
import pytest

from models.intervals import METRICS, Interval, bootstrap, draws
from models.metrics import auc, gauc, log_loss

Float64 = npt.NDArray[np.float64]


def people(users: int, seed: int, rows: int = 10) -> tuple[Float64, npt.NDArray[np.int64], Float64, Float64]:
    """Labels, users, and the probabilities of a good and of a poorer model, which knows less of each impression."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rows)
    taste = np.repeat(random.normal(-0.5, 1.0, users), rows)
    known, hidden = random.normal(size=(2, len(user)))
    labels = (random.random(len(user)) < logistic(taste + known + 0.7 * hidden)).astype(float)
    return (
        labels,
        user,
        logistic(0.8 * taste + known),
        logistic(0.5 * taste + known + 0.5 * random.normal(size=len(user))),
    )


def logistic(x: Float64) -> Float64:
    return 1.0 / (1.0 + np.exp(-x))


def test_every_draw_is_the_metric_of_the_drawn_users_rows() -> None:
    labels, user, good, poor = people(40, seed=1)
    good, poor = np.round(good, 1), np.round(poor, 1)  # ties, within and across users
    shuffled = np.random.default_rng(0).permutation(len(labels))
    labels, user, good, poor = labels[shuffled], user[shuffled] * 3 + 7, good[shuffled], poor[shuffled]
    found = bootstrap(labels, user, [good, poor], replicates=20, seed=5)
    for r, weights in enumerate(draws(40, 20, seed=5)):
        assert weights.sum() == 40
        rows: list[int] = []
        copies: list[int] = []
        for u, times in enumerate(weights.astype(int)):
            for copy in range(times):
                own = np.flatnonzero(user == u * 3 + 7)
                rows += own.tolist()
                copies += [u * 1000 + copy] * len(own)
        for s, score in enumerate((good, poor)):
            assert found.drawn["auc"][r, s] == pytest.approx(auc(labels[rows], score[rows]), abs=1e-12)
            assert found.drawn["gauc"][r, s] == pytest.approx(gauc(labels[rows], score[rows], copies).value, abs=1e-12)
            assert found.drawn["logloss"][r, s] == pytest.approx(log_loss(labels[rows], score[rows]), abs=1e-12)
    for s, score in enumerate((good, poor)):
        assert found.measured["auc"][s] == pytest.approx(auc(labels, score), abs=1e-12)
        assert found.measured["gauc"][s] == pytest.approx(gauc(labels, score, user).value, abs=1e-12)
        assert found.measured["logloss"][s] == pytest.approx(log_loss(labels, score), abs=1e-12)


def test_a_difference_is_that_of_the_means_over_seeds() -> None:
    labels, user, good, poor = people(60, seed=2)
    found = bootstrap(labels, user, [good, poor, good**2, poor**2], replicates=50)
    for metric in METRICS:
        by_hand = found.drawn[metric] @ [0.5, -0.5, 0.5, -0.5]
        low, high = np.percentile(by_hand, [2.5, 97.5])
        value = found.measured[metric] @ [0.5, -0.5, 0.5, -0.5]
        got = found.difference(metric, [0, 2], [1, 3])
        assert (got.value, got.low, got.high) == pytest.approx((value, low, high), abs=1e-12)


def test_a_model_does_not_differ_from_itself() -> None:
    labels, user, good, _ = people(50, seed=3)
    found = bootstrap(labels, user, [good, good], replicates=30)
    assert all(found.difference(metric, [0], [1]) == Interval(0.0, 0.0, 0.0) for metric in METRICS)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """150 samples of 300 users. Of samples whose intervals truly cover 95 %, one in 100 is outside of these bounds."""
    truth = bootstrap(*_population(people(60_000, seed=4)), replicates=1).measured
    covered = dict.fromkeys(METRICS, 0)
    for trial in range(150):
        labels, user, good, poor = people(300, seed=100 + trial)
        found = bootstrap(labels, user, [good, poor], replicates=120, seed=trial)
        for metric in METRICS:
            interval = found.difference(metric, [0], [1])
            assert interval.low < interval.value < interval.high
            covered[metric] += interval.low <= truth[metric][0] - truth[metric][1] <= interval.high
    for metric, times in covered.items():
        assert 136 <= times <= 148, f"{metric}: {times} of 150"


def _population(
    drawn: tuple[Float64, npt.NDArray[np.int64], Float64, Float64],
) -> tuple[Float64, npt.NDArray[np.int64], list[Float64]]:
    labels, user, good, poor = drawn
    return labels, user, [good, poor]


def test_pairing_narrows_the_interval() -> None:
    """Models that share most of what they know are compared far more sharply than each is measured."""
    labels, user, good, _ = people(500, seed=6)
    alike = logistic(np.log(good / (1 - good)) + 0.05 * np.random.default_rng(0).normal(size=len(good)))
    found = bootstrap(labels, user, [good, alike], replicates=200)
    paired = found.difference("auc", [0], [1])
    alone = np.quantile(found.drawn["auc"][:, 0], [0.025, 0.975])
    assert (paired.high - paired.low) < 0.2 * (alone[1] - alone[0])


def test_draws_depend_on_the_seed_alone() -> None:
    labels, user, good, poor = people(50, seed=7)
    same, again, other = (bootstrap(labels, user, [good, poor], replicates=9, seed=s).drawn for s in (1, 1, 2))
    np.testing.assert_array_equal(same["auc"], again["auc"])
    assert not np.array_equal(same["auc"], other["auc"])


def test_a_draw_without_a_class_is_not_a_number() -> None:
    found = bootstrap([1, 0], ["a", "b"], [[0.7, 0.2]], replicates=20)
    whole = np.array([np.ptp(weights) == 0 for weights in draws(2, 20, 0)])
    np.testing.assert_array_equal(np.isfinite(found.drawn["auc"][:, 0]), whole)
    assert whole.any()
    assert not whole.all()
    assert np.isnan(found.drawn["gauc"]).all()
    assert np.isfinite(found.drawn["logloss"]).all()
    assert np.isnan(found.difference("auc", [0], [0]).low)


@pytest.mark.parametrize(("scores", "replicates"), [([], 5), ([[0.5, 0.5]], 0)])
def test_nothing_to_draw_is_refused(scores: list[list[float]], replicates: int) -> None:
    with pytest.raises(ValueError, match=f"{len(scores)} score vectors and {replicates} replicates"):
        bootstrap([0, 1], [1, 2], scores, replicates)


def test_what_the_metrics_refuse_is_refused() -> None:
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        bootstrap([0, 2], [1, 2], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="must be probabilities"):
        bootstrap([0, 1], [1, 2], [[0.5, 1.5]])
