"""Bounds that hold at every look."""

import numpy as np
import pytest
from scipy.special import betaln

from outcomes.statistics.sequences import CONCENTRATION, best, share, width


def factor(x: float, alpha: float) -> float:
    """Theorem 2.2 of arXiv 2103.06476 with t ρ² = x, over the standard error."""
    return float(np.sqrt(2 * (x + 1) / x * np.log(np.sqrt(x + 1) / alpha)))


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_the_interval_is_tightest_where_it_was_planned(alpha: float) -> None:
    planned = width(np.asarray(5000.0), 5000, alpha)
    assert planned == pytest.approx(factor(best(alpha), alpha))
    for other in (0.5, 0.9, 1.1, 2.0):
        assert planned < width(np.asarray(5000.0), 5000 * other, alpha)


def test_it_is_wider_than_at_one_look_and_infinite_before_any() -> None:
    looks = width(np.array([0.0, 20, 200, 2000, 20_000, 200_000]), 2000, 0.05)
    assert looks[0] == np.inf
    assert looks.min() == looks[3] == pytest.approx(3.035, abs=0.001)
    assert looks[4] < 1.1 * looks[3]


def test_a_walk_leaves_it_as_seldom_as_stated() -> None:
    """2,000 walks of 5,000 normal steps, looked at after each from the first on."""
    random = np.random.default_rng(1)
    steps = np.arange(1.0, 5001.0)
    bound = width(steps, 500, 0.1) * np.sqrt(steps)
    left = [(np.abs(random.standard_normal((100, 5000)).cumsum(axis=1)) > bound).any(axis=1).mean() for _ in range(20)]
    assert 0.04 < np.mean(left) < 0.1


def test_bounds_of_a_share_are_where_the_evidence_reaches_the_level() -> None:
    found = share(30, 1000, near=0.01, alpha=0.01)
    a, b = CONCENTRATION * 0.01, CONCENTRATION * 0.99
    for bound in (found.low, found.high):
        log_e = betaln(a + 30, b + 970) - betaln(a, b) - 30 * np.log(bound) - 970 * np.log1p(-bound)
        assert log_e == pytest.approx(np.log(100))
    assert found.low < found.value == 0.03 < found.high


def test_none_and_all_are_bounded_on_one_side() -> None:
    none, every = share(0, 500, 0.01, 0.05), share(5000, 5000, 0.9, 0.05)
    assert (none.value, none.low) == (0.0, 0.0)
    assert 0.005 < none.high < 0.02
    assert (every.value, every.high) == (1.0, 1.0)
    assert 0.95 < every.low < 1.0


def test_the_bounds_of_a_share_hold_at_every_look() -> None:
    """1 % of requests fail; 300 services, looked at every 100 of 5,000 requests."""
    random = np.random.default_rng(2)
    failed = (random.random((300, 5000)) < 0.01).cumsum(axis=1)[:, 99::100]
    wrong = 0
    for service in failed:
        found = [share(int(count), 100 * (i + 1), 0.01, 0.1) for i, count in enumerate(service)]
        wrong += any(each.low > 0.01 or each.high < 0.01 for each in found)
    assert wrong / 300 < 0.1


@pytest.mark.parametrize(("count", "of"), [(0, 0), (3, 2), (-1, 5)])
def test_counts_that_cannot_be_are_refused(count: int, of: int) -> None:
    with pytest.raises(ValueError, match=f"{count} of {of} events"):
        share(count, of, 0.01, 0.05)
