"""Overlap, rank correlation and score shift against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from service.comparison import EDGES, FLOOR, ScoreShift, binned, mean_shift, overlap, psi, rank_correlation


def test_overlap_is_a_share_of_what_was_shown() -> None:
    assert overlap([1, 2, 3, 4], [4, 9, 1, 8]) == 0.5
    assert overlap([1], [1, 2, 3]) == 1.0
    assert overlap([1, 2], []) == 0.0
    with pytest.raises(ValueError, match="nothing was shown"):
        overlap([], [1])


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_spearmans(seed: int) -> None:
    random = np.random.default_rng(seed)
    a = random.normal(size=20)
    b = (a + random.normal(size=20)).round(seed % 2)  # with equals, and without
    found = rank_correlation(a, b)
    assert found == pytest.approx(stats.spearmanr(a, b).statistic)
    a[3], b[7] = np.nan, np.inf
    kept = [i for i in range(20) if i not in {3, 7}]
    assert rank_correlation(a, b) == pytest.approx(stats.spearmanr(a[kept], b[kept]).statistic)


def test_too_little_to_correlate_is_nothing() -> None:
    line = np.arange(5.0)
    assert rank_correlation(line, np.ones(5)) is None
    assert rank_correlation(line[:2], line[:2]) is None
    assert rank_correlation(line, -line) == pytest.approx(-1.0)


def test_psi_is_its_formula() -> None:
    shift = ScoreShift()
    shift.add(np.array([0.01] * 30 + [0.3] * 10), np.array([0.01] * 10 + [0.3] * 30))
    bins = len(EDGES) + 1
    low, high = np.array([30, 10]) + FLOOR, np.array([10, 30]) + FLOOR
    p, q = low / (40 + bins * FLOOR), high / (40 + bins * FLOOR)
    assert shift.psi == pytest.approx(float(((p - q) * np.log(p / q)).sum()))
    assert shift.psi > 0.25


def test_psi_of_like_scores_is_small_and_grows_with_the_distance() -> None:
    random = np.random.default_rng(0)
    found = []
    for distance in (0.0, 0.3, 1.0):
        shift = ScoreShift()
        logits = random.normal(-3.0, 1.0, size=(2, 5000))
        shift.add(1 / (1 + np.exp(-logits[0])), 1 / (1 + np.exp(-logits[1] - distance)))
        found.append(shift.psi)
    assert found[0] < 0.02
    assert 0.05 < found[1] < 0.25 < found[2]


def test_scores_at_the_ends_and_such_that_are_no_numbers() -> None:
    shift = ScoreShift()
    shift.add(np.array([0.0, 1.0, np.nan, 0.5]), np.array([0.0, 1.0, 0.5, np.nan]))
    assert shift.counts.sum() == 4
    assert shift.counts[:, 0].tolist() == shift.counts[:, -1].tolist() == [1, 1]
    assert shift.psi == 0.0


def test_numbers_of_scores_may_differ() -> None:
    """Twice as many scores of the same kind are no shift."""
    few = binned([0.01, 0.2] * 500)
    assert few.sum() == 1000
    assert psi(few, binned([0.01, 0.2] * 1000)) < 0.01
    assert psi(few, binned([0.02, 0.3] * 1000)) > 1


def test_mean_shift_is_relative() -> None:
    assert mean_shift([0.1, 0.3], [0.2, 0.2]) == pytest.approx(0.5)
    assert mean_shift([], []) == 0
