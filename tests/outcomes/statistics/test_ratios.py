"""Ratios of sums over users: the delta method, CUPED, differences and lifts."""

import numpy as np
import pytest

from outcomes.statistics.moments import Float64, Moments
from outcomes.statistics.ratios import Rate, difference, lift, rates, within

THREE = np.asarray(3.0)


def users(count: int, seed: int, ctr: float = 0.1) -> Float64:
    """[count, 5]: clicks, impressions, past clicks, past impressions, 1 with a past. Users differ."""
    random = np.random.default_rng(seed)
    rate = random.beta(ctr * 3, (1 - ctr) * 3, count)
    seen = 1 + random.poisson(random.gamma(0.7, 8.0, count))
    known = random.random(count) < 0.7
    before = random.poisson(20, count) * known
    return np.stack([random.binomial(seen, rate), seen, random.binomial(before, rate), before, known], axis=1).astype(
        float
    )


def test_the_variance_is_that_of_linearised_users() -> None:
    rows = users(500, seed=1)
    (found,) = rates([Moments.of(rows)], 0, 1)
    ratio = rows[:, 0].sum() / rows[:, 1].sum()
    z = (rows[:, 0] - ratio * rows[:, 1]) / rows[:, 1].mean()
    assert found.value == pytest.approx(ratio)
    assert found.variance == pytest.approx(z.var(ddof=1) / 500)


def test_it_is_how_far_the_ratio_lies_from_draw_to_draw() -> None:
    draws = [rates([Moments.of(users(400, seed))], 0, 1)[0] for seed in range(400)]
    between = np.var([float(each.value) for each in draws])
    assert np.mean([float(each.variance) for each in draws]) == pytest.approx(between, rel=0.2)
    impressions = 400 * users(4000, 1)[:, 1].mean()
    assert between > 3 * 0.1 * 0.9 / impressions  # what impressions drawn one by one would have


def test_many_looks_at_once_are_each_look_by_itself() -> None:
    arms = [[users(n, seed) for n in (3, 50, 200)] for seed in (1, 2)]
    stacked = [
        Moments(*(np.stack([getattr(Moments.of(rows), name) for rows in arm]) for name in ("users", "total", "cross")))
        for arm in arms
    ]
    together = rates(stacked, 0, 1, (2, 3, 4))
    for look in range(3):
        alone = rates([Moments.of(arm[look]) for arm in arms], 0, 1, (2, 3, 4))
        for i in range(2):
            assert together[i].value[look] == pytest.approx(float(alone[i].value))
            assert together[i].variance[look] == pytest.approx(float(alone[i].variance))


def test_the_past_is_taken_out_by_least_squares_over_all_arms() -> None:
    arms = [users(800, seed=3), users(300, seed=4)]
    found = rates([Moments.of(rows) for rows in arms], 0, 1, (2, 3, 4))
    ratio = [rows[:, 0].sum() / rows[:, 1].sum() for rows in arms]
    z = [(rows[:, 0] - r * rows[:, 1]) / rows[:, 1].mean() for rows, r in zip(arms, ratio, strict=True)]
    past = [rows[:, 2:] for rows in arms]
    around = np.concatenate([each - each.mean(axis=0) for each in past])
    theta = np.linalg.lstsq(around, np.concatenate(z), rcond=None)[0]
    middle = np.concatenate(past).mean(axis=0)
    for i in range(2):
        assert found[i].value == pytest.approx(ratio[i] - (past[i].mean(axis=0) - middle) @ theta)
    plain = rates([Moments.of(rows) for rows in arms], 0, 1)
    assert sum(float(each.variance) for each in found) < 0.8 * sum(float(each.variance) for each in plain)


def test_a_difference_that_the_past_explains_goes_away() -> None:
    """The arm drew users who always clicked more; the adjusted difference says so."""
    rows = users(20_000, seed=5)
    eager = rows[:, 2] > np.median(rows[:, 2])
    random = np.random.default_rng(6).random(len(rows))
    mine = np.where(eager, random < 0.65, random < 0.35)
    arms = [Moments.of(rows[mine]), Moments.of(rows[~mine])]
    plain, adjusted = (
        difference(one, other, THREE) for one, other in (rates(arms, 0, 1), rates(arms, 0, 1, (2, 3, 4)))
    )
    assert plain.low > 0
    assert abs(adjusted.value) < 0.5 * plain.value


@pytest.mark.parametrize("past", [(2,), (3, 4), (2, 3, 4)])
def test_a_past_that_nobody_has_changes_nothing(past: tuple[int, ...]) -> None:
    arms = [users(100, seed) for seed in (1, 2)]
    for rows in arms:
        rows[:, 2:] = 0.0
    moments = [Moments.of(rows) for rows in arms]
    for with_past, without in zip(rates(moments, 0, 1, past), rates(moments, 0, 1), strict=True):
        assert with_past.value == pytest.approx(float(without.value))
        assert with_past.variance == pytest.approx(float(without.variance))


def test_an_arm_with_few_clicks_is_not_sure_of_it() -> None:
    """No click has no variance of its own: that of all arms stands in."""
    none = users(200, seed=1)
    none[:, 0] = 0.0
    arm, control = rates([Moments.of(none), Moments.of(users(2000, seed=2))], 0, 1)
    assert arm.value == 0.0
    assert arm.variance == pytest.approx(float(control.variance) * 10, rel=0.1)


def test_arms_without_users_or_impressions_have_no_ratio_and_harm_no_other() -> None:
    full, empty = Moments.of(users(100, seed=1)), Moments.of(np.zeros((0, 5)))
    unseen = Moments.of(np.zeros((10, 5)))
    found = rates([full, empty, unseen], 0, 1, (2, 3, 4))
    assert np.isfinite(found[0].variance)
    for each in found[1:]:
        assert np.isnan(each.value)
        assert np.isnan(each.variance)
    assert np.isnan(difference(found[0], found[1], THREE).low)


def test_an_interval_is_so_many_standard_errors() -> None:
    rate = Rate(np.asarray(0.5), np.asarray(0.04))
    found = within(rate, THREE)
    assert [float(each) for each in (found.low, found.value, found.high)] == pytest.approx([-0.1, 0.5, 1.1])


@pytest.mark.parametrize("ctr", [0.02, 0.03, 0.031, 0.034, 0.05])
def test_the_lift_leaves_0_out_exactly_when_the_difference_does(ctr: float) -> None:
    arm, control = Rate(np.asarray(ctr), np.asarray(1e-6)), Rate(np.asarray(0.03), np.asarray(1e-6))
    absolute, relative = difference(arm, control, THREE), lift(arm, control, THREE)
    assert relative.value == pytest.approx(ctr / 0.03 - 1)
    assert (relative.low > 0, relative.high < 0) == (absolute.low > 0, absolute.high < 0)
    for bound in (relative.low, relative.high):  # where arm − (1 + r) control is exactly three errors from 0
        contrast, error = ctr - (1 + bound) * 0.03, np.sqrt(1e-6 + (1 + bound) ** 2 * 1e-6)
        assert abs(contrast) == pytest.approx(3 * error)


def test_the_lift_over_a_control_that_may_be_nothing_is_unbounded() -> None:
    found = lift(Rate(np.asarray(0.02), np.asarray(1e-6)), Rate(np.asarray(0.002), np.asarray(1e-6)), THREE)
    assert [float(found.low), float(found.high)] == [-np.inf, np.inf]
    assert np.isnan(lift(Rate(np.asarray(0.02), np.asarray(1e-6)), Rate(np.asarray(0.0), np.asarray(0.0)), THREE).value)
