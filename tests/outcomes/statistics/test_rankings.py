"""AUC and GAUC are those of training, and the interval of a difference is as wide as users make it."""

from math import isnan

import numpy as np
import pytest

from models import metrics
from outcomes.statistics.rankings import LEAST, Bools, Float64, Int64, auc, compare, user_aucs


def drawn(seed: int, users: int = 60, rows: int = 900) -> tuple[Bools, Float64, Float64, Int64]:
    """Clicks, two scores that know something of them and have ties, users; every user is there."""
    draw = np.random.default_rng(seed)
    user = np.concatenate([np.arange(users), draw.integers(users, size=rows - users)])
    taste = draw.normal(size=users)[user] + draw.normal(size=rows)
    clicked = draw.random(rows) < 1 / (1 + np.exp(1.5 - taste))
    live, other = (np.round(taste + draw.normal(size=rows), 1) for _ in range(2))
    return clicked, live, other, user


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_are_those_of_training(seed: int) -> None:
    clicked, live, other, users = drawn(seed)
    found = compare(clicked, live, other, users, replicates=10)
    for change, measure in ((found.auc, metrics.auc), (found.gauc, lambda c, s: metrics.gauc(c, s, users).value)):
        assert change.live == pytest.approx(measure(clicked, live), abs=1e-12)
        assert change.other == pytest.approx(measure(clicked, other), abs=1e-12)
    expected = metrics.gauc(clicked, live, users)
    assert (found.users, found.rows) == (expected.users, expected.rows)
    each, theirs = metrics.user_aucs(clicked, live, users), user_aucs(clicked, live, users)
    assert theirs[0] == pytest.approx(each.value, abs=1e-12)
    assert theirs[1].tolist() == each.rows.tolist()
    assert auc(clicked, live) == pytest.approx(metrics.auc(clicked, live), abs=1e-12)


def test_a_ranking_does_not_differ_from_itself() -> None:
    clicked, live, _, users = drawn(4)
    found = compare(clicked, live, 3 * live - 1, users, replicates=50)
    for change in (found.auc, found.gauc):
        assert (change.other - change.live, change.low, change.high) == (0, 0, 0)


def test_impressions_of_the_same_users_make_it_no_surer() -> None:
    """Who has each impression ten times has no more users than before. As independent impressions they would narrow the
    interval to a third."""
    clicked, live, other, users = drawn(5)
    once = compare(clicked, live, other, users, replicates=200)
    often = compare(np.tile(clicked, 10), np.tile(live, 10), np.tile(other, 10), np.tile(users, 10), replicates=200)
    for a, b in ((once.auc, often.auc), (once.gauc, often.gauc)):
        assert (b.low, b.high) == pytest.approx((a.low, a.high), abs=1e-9)
        assert a.low < a.other - a.live < a.high


def test_two_that_are_alike_are_told_apart_as_seldom_as_stated() -> None:
    """Both scores know the same and err by themselves: their true difference is 0."""
    outside = np.zeros(2)
    for seed in range(120):
        found = compare(*drawn(seed), replicates=200)
        outside += [not each.low <= 0 <= each.high for each in (found.auc, found.gauc)]
    assert (outside <= 12).all(), "5 % of 120 are 6; 13 or more come by chance once in 100 times"
    assert (outside >= 1).all()


def test_one_that_knows_more_is_told() -> None:
    clicked, live, _, users = drawn(6)
    found = compare(clicked, live, live + 2.0 * clicked, users, replicates=200)
    assert found.auc.low > 0
    assert found.gauc.low > 0


def test_what_the_impressions_do_not_say_is_not_a_number() -> None:
    clicked, live, other, users = drawn(7, users=LEAST - 1)
    few = compare(clicked, live, other, users, replicates=50)
    assert 0.5 < few.gauc.live < 1
    assert isnan(few.gauc.low)
    assert isnan(few.auc.high)
    none = compare(np.zeros(900, dtype=np.bool_), live, other, users, replicates=50)
    assert isnan(none.auc.live)
    assert isnan(none.gauc.other)
    assert none.users == none.rows == 0
    with pytest.raises(ValueError, match="no impressions"):
        compare(clicked[:0], live[:0], other[:0], users[:0])
