"""How far apart two graphs' scores are, and what is too far."""

import numpy as np
import pytest

from bundle.precision import Deviation
from export.deviation import PCTR_MAX, PCTR_SHARE, TOP10, complaint, deviation
from tests.export.graphs import Float32

RANDOM = np.random.default_rng(0)
EXACT = [RANDOM.normal(size=200).astype(np.float32) - 3 for _ in range(5)]


def shifted(by: Float32 | float) -> list[Float32]:
    return [(each + by).astype(np.float32) for each in EXACT]


def test_equal_scores_do_not_deviate() -> None:
    found = deviation(EXACT, EXACT)
    assert found == Deviation(requests=5, candidates=1000, logit_max=0, pctr_max=0, pctr_share=0, top10=1)
    assert complaint(found) is None


def test_figures_are_those_of_their_names() -> None:
    one, two = [np.array([0.0, 1.0], np.float32)], [np.array([0.0, 1.5], np.float32)]
    found = deviation(two, one)
    assert found is not None
    before, after = 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(-1.5))
    assert found.logit_max == pytest.approx(0.5)
    assert found.pctr_max == pytest.approx(after - before)
    assert found.pctr_share == pytest.approx((after - before) / (0.5 + before))


def test_the_ten_best_are_compared_by_rank() -> None:
    found = deviation(shifted(2.0), EXACT)
    assert found is not None
    assert found.top10 == 1
    turned = deviation([-each for each in EXACT], EXACT)
    assert turned is not None
    assert turned.top10 == 0
    half = EXACT[0].copy()
    half[np.argsort(-half)[:5]] = -9
    some = deviation([half], EXACT[:1])
    assert some is not None
    assert some.top10 == 0.5


def test_of_equal_scores_any_is_among_the_best() -> None:
    tied = [np.zeros(50, np.float32)]
    found = deviation([np.arange(50, dtype=np.float32) * 1e-6], tied)
    assert found is not None
    assert found.top10 == 1


def test_fewer_than_ten_candidates() -> None:
    found = deviation([np.array([1.0, 2.0], np.float32)], [np.array([2.0, 1.0], np.float32)])
    assert found is not None
    assert found.top10 == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_have_no_deviation(bad: float) -> None:
    broken = [each.copy() for each in EXACT]
    broken[3][7] = bad
    assert deviation(broken, EXACT) is None
    assert complaint(None) == "its scores are not finite"


def test_each_bound_is_held_and_named() -> None:
    good = Deviation(requests=5, candidates=1000, logit_max=9, pctr_max=PCTR_MAX, pctr_share=PCTR_SHARE, top10=TOP10)
    assert complaint(good) is None
    for change, words in (
        ({"pctr_max": 0.021}, "a click probability differs by 0.021 (at most 0.02)"),
        ({"pctr_share": 0.0051}, "they differ by 0.51% on average (at most 0.50%)"),
        ({"top10": 0.985}, "98.5% of the ten best ads stay (at least 99%)"),
    ):
        assert complaint(good.model_copy(update=change)) == words
    assert "0.5" in (complaint(deviation(shifted(0.5), EXACT)) or "")


def test_ads_that_hardly_differ_may_change_places() -> None:
    exact = np.linspace(0, 0.004, 50, dtype=np.float32)  # 0.2 % of a click probability apart
    found = deviation([exact[::-1].copy()], [exact])
    assert found is not None
    assert found.top10 == 1
    apart = deviation([exact[::-1] * 10], [exact * 10])
    assert apart is not None
    assert apart.top10 < 0.5
