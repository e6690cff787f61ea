"""The verdict on simulated experiments whose truth is known."""

import pytest

from control.state import CONTROL
from outcomes.results import Interval, Reading, Verdict
from outcomes.verdict import judge
from tests.outcomes.simulated import crowd, experiment, impression, request, tables

EVEN = {"control": 1500, "new": 1500}
SAME = {"control": 0.1, "new": 0.1}
NOW = 1_000_100.0


def verdict(users: dict[str, int], ctr: dict[str, float], reading: Reading | None = None, **more: object) -> Verdict:
    return judge(experiment(), *crowd(users, ctr, **more), reading or Reading(), NOW)  # type: ignore[arg-type]


def length(interval: Interval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def test_arms_in_numbers() -> None:
    requests, impressions = crowd({"control": 300, "new": 200}, SAME)
    found = judge(experiment(), requests, impressions, Reading(), NOW)
    arm = found.arm("new")
    clicks = int(impressions.filter(impressions["arms"].list.contains("try:new"))["clicked"].sum())
    assert (arm.users, arm.impressions, arm.clicks, arm.requests) == (200, 1200, clicks, 400)
    assert arm.revenue == 2.0 * clicks
    assert arm.ctr == clicks / 1200
    assert arm.ecpm == 2.0 * clicks / 1200
    assert arm.calibration.value == pytest.approx(clicks / 120)
    assert (arm.p50_ms, arm.p99_ms, arm.failed) == (10.0, 10.0, 0)
    assert (found.at, found.metric, found.alpha, found.control.name) == (NOW, "ctr", 0.05, CONTROL)
    with pytest.raises(KeyError):
        found.arm("old")


@pytest.mark.parametrize(
    ("ctr", "said"), [(0.1, "no difference yet"), (0.16, "better"), (0.05, "worse"), (0.0, "worse")]
)
def test_the_decision(ctr: float, said: str) -> None:
    found = verdict(EVEN, {"control": 0.1, "new": ctr})
    arm = found.arms[0]
    assert arm.decision == said
    by_ctr, by_revenue = arm.differences
    assert (by_ctr.metric, by_revenue.metric) == ("ctr", "ecpm")
    for interval, true in (
        (by_ctr.absolute, ctr - 0.1),
        (by_ctr.lift, ctr / 0.1 - 1),
        (by_revenue.absolute, 2 * (ctr - 0.1)),
    ):
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low <= true <= interval.high
    assert found.control.decision is None
    assert found.control.differences == ()


def test_another_metric_may_decide() -> None:
    """Fewer clicks, each worth more."""
    ctr, bid = {"control": 0.16, "new": 0.1}, {"control": 2.0, "new": 6.0}
    assert verdict(EVEN, ctr, bid=bid).arms[0].decision == "worse"
    assert verdict(EVEN, ctr, Reading(metric="ecpm"), bid=bid).arms[0].decision == "better"


def test_too_few_users_or_clickers_are_not_compared() -> None:
    few = verdict({"control": 110, "new": 99}, SAME).arms[0]
    assert (few.decision, few.differences, few.ctr_lift.low) == ("no difference yet", (), None)
    assert few.note == "new has 99 users, 100 are needed"
    rare = verdict({"control": 110, "new": 110}, {"control": 0.005, "new": 0.005}).arms[0]
    assert rare.differences == ()
    assert "users that click are expected in an arm, 20 are needed" in rare.note
    assert verdict(EVEN, {"control": 0.1, "new": 0.0}).arms[0].note == ""  # none of its own is no reason to wait


def test_the_past_narrows_the_interval_and_can_be_left_out() -> None:
    requests, impressions = crowd(EVEN, SAME, past=True)
    with_past = judge(experiment(), requests, impressions, Reading(), NOW).arms[0].differences[0]
    without = judge(experiment(), requests, impressions, Reading(past_days=0), NOW).arms[0].differences[0]
    assert without.explained is None
    assert with_past.explained is not None
    assert 0.2 < with_past.explained < 0.8

    assert length(with_past.absolute) == pytest.approx(length(without.absolute) * (1 - with_past.explained) ** 0.5)


def test_several_arms_share_the_level() -> None:
    arms = [{"name": "new", "weight": 0.3}, {"name": "other", "weight": 0.3}]
    requests, impressions = crowd({"control": 800, "new": 600, "other": 600}, SAME | {"other": 0.1})
    two = judge(experiment(arms=arms), requests, impressions, Reading(), NOW)
    looser = judge(experiment(arms=arms), requests, impressions, Reading(alpha=0.1), NOW)
    one = judge(experiment(), requests, impressions, Reading(), NOW)
    assert [arm.name for arm in two.arms] == ["new", "other"]
    wide, same = two.arms[0].differences[0].absolute, looser.arms[0].differences[0].absolute
    assert wide.low is not None
    assert one.arms[0].differences[0].absolute.low is not None
    assert same.low is not None
    assert wide.low < same.low
    assert same.low == pytest.approx(one.arms[0].differences[0].absolute.low, rel=0.05)  # 0.1 / 2, almost


def test_users_that_do_not_come_as_dealt_are_a_mismatch() -> None:
    found = verdict({"control": 1500, "new": 1000}, {"control": 0.1, "new": 0.2})
    assert found.arms[0].decision == "mismatch: do not read"
    assert found.srm_log_e is not None
    assert found.srm_log_e > found.srm_limit
    assert found.mismatch.startswith("users came as control 1,500, new 1,000, not as they were dealt")
    even = verdict({"control": 1500, "new": 1450}, {"control": 0.1, "new": 0.2})
    assert (even.mismatch, even.arms[0].decision) == ("", "better")


def test_shares_are_those_of_arms_that_still_run() -> None:
    """A stopped arm gets no more users, which is no mismatch; nor are arms of weight 0."""
    arms = [
        {"name": "new", "weight": 0.4},
        {"name": "gone", "weight": 0.3, "stopped": True},
        {"name": "none", "weight": 0},
    ]
    users = {"control": 600, "new": 800, "gone": 50}
    found = judge(experiment(arms=arms), *crowd(users, SAME | {"gone": 0.1}), Reading(), NOW)
    assert found.mismatch == ""
    assert found.srm_log_e is not None
    assert [arm.stopped for arm in found.arms] == [False, True, False]
    alone = experiment(arms=[{"name": "new", "weight": 1}])
    assert judge(alone, *crowd({"new": 200}, SAME), Reading(), NOW).srm_log_e is None


def test_users_seen_in_two_arms_are_a_mismatch() -> None:
    requests = [request(f"u{i}", "new") for i in range(100)] + [request(f"c{i}", "control") for i in range(100)]
    for moved, said in ((2, ""), (3, "3 of 200 users were seen in two arms, limit 0.01 of all")):
        twice = [request(f"u{i}", "control", time_ms=2_000_000_000) for i in range(moved)]
        found = judge(experiment(), *tables(requests + twice, []), Reading(), NOW)
        assert (found.moved, found.mismatch) == (moved, said)


def test_calibration_has_bounds_that_a_lucky_few_do_not_close() -> None:
    good = verdict(EVEN, SAME).arms[0].calibration
    assert good.low is not None
    assert good.high is not None
    assert good.low < 1 < good.high
    wrong = verdict(EVEN, SAME, pctr=0.2).arms[0].calibration
    assert wrong.high is not None
    assert wrong.high < 1
    none = judge(experiment(), *tables([], [impression(f"u{i}", "new") for i in range(50)]), Reading(), NOW).arms[0]
    assert none.calibration.value == 0.0
    assert none.calibration.high is not None
    assert none.calibration.high > 1  # of 5 promised clicks none came


def test_before_anybody_came_there_is_a_verdict_without_numbers() -> None:
    found = judge(experiment(guardrails={"p99_ms": 50.0}), *tables([], []), Reading(), NOW)
    arm = found.arms[0]
    assert (arm.users, arm.ctr, arm.p99_ms, arm.slow.value, arm.error_rate.high) == (0, None, None, None, None)
    assert (arm.decision, arm.calibration.value) == ("no difference yet", None)
    assert found.srm_log_e == pytest.approx(0.0, abs=1e-6)
    assert Verdict.model_validate_json(found.model_dump_json()) == found


def test_bounds_of_slow_and_failed_requests() -> None:
    one = experiment(guardrails={"p99_ms": 50.0, "error_rate": 0.02})
    found = judge(one, *crowd(EVEN, SAME, slow={"new": 0.05}, failed={"new": 0.03}), Reading(), NOW)
    arm, control = found.arms[0], found.control
    assert arm.slow.low is not None
    assert arm.slow.low > 0.03
    assert arm.error_rate.value == pytest.approx(0.03, abs=0.01)
    assert control.slow.high is not None
    assert (control.slow.value, control.slow.low) == (0.0, 0.0)
    assert 0 < control.slow.high < 0.01
