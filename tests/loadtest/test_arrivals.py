"""Arrivals follow their curve, offer exactly its area, and are the same for the same seed."""

import numpy as np
import pytest

from loadtest import arrivals

CURVES = {
    "constant": arrivals.constant(200, 50),
    "steps": arrivals.steps([50, 300, 10], 20),
    "burst": arrivals.burst(50, 500, 60, 20, 10),
    "diurnal": arrivals.diurnal(20, 300, 100),
    "flash": arrivals.flash_crowd(50, 600, 60, 20, 5, 15),
    "from nothing": [(0.0, 0.0), (50.0, 400.0)],
}


@pytest.mark.parametrize("name", CURVES)
def test_arrivals_follow_the_curve(name: str) -> None:
    curve = CURVES[name]
    times = arrivals.times(curve, 3)
    assert len(times) == round(arrivals.expected(curve))
    assert (np.diff(times) >= 0).all()
    assert times[0] >= 0
    assert times[-1] <= curve[-1][0]
    for begin in range(0, int(curve[-1][0]), 5):
        wanted = arrivals.expected(curve, begin, begin + 5)
        found = int(((times >= begin) & (times < begin + 5)).sum())
        assert abs(found - wanted) <= 5 * max(wanted, 1) ** 0.5, (begin, found, wanted)


def test_gaps_of_a_constant_rate_are_those_of_a_poisson_process() -> None:
    gaps = np.diff(arrivals.times(arrivals.constant(100, 200), 1))
    assert gaps.mean() == pytest.approx(0.01, rel=0.01)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)  # of an exponential distribution: as large as the mean


def test_a_seed_is_a_sequence() -> None:
    curve = CURVES["flash"]
    assert (arrivals.times(curve, 1) == arrivals.times(curve, 1)).all()
    assert (arrivals.times(curve, 1) != arrivals.times(curve, 2)).any()


def test_areas_are_exact() -> None:
    assert arrivals.expected([(0, 0), (10, 100)]) == 500
    assert arrivals.expected([(0, 0), (10, 100)], 5, 10) == 375
    assert arrivals.expected(arrivals.burst(10, 100, 30, 10, 5)) == 25 * 10 + 5 * 100


@pytest.mark.parametrize("curve", [[(0.0, 1.0), (5.0, -1.0)], [(3.0, 1.0), (1.0, 1.0)]])
def test_an_impossible_curve_is_refused(curve: arrivals.Curve) -> None:
    with pytest.raises(ValueError, match="must go forward and not below 0"):
        arrivals.times(curve, 0)
