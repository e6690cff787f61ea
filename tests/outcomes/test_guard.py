"""Guardrails stop arms that crossed a limit for certain, and no others."""

import logging
import threading
from dataclasses import dataclass, field

import pytest

from control.state import Experiment
from outcomes.guard import Crossed, Guard, Tables, crossed
from outcomes.results import Reading
from outcomes.verdict import judge
from tests.outcomes.simulated import crowd, experiment

ALL: dict[str, object] = {"p99_ms": 50.0, "error_rate": 0.02, "calibration": 1.5, "ctr_drop": 0.1}
EVEN = {"control": 2000, "new": 2000}
SAME = {"control": 0.1, "new": 0.1}


def stops(guardrails: dict[str, object], **world: object) -> list[Crossed]:
    one = experiment(guardrails=guardrails)
    drawn = {"users": EVEN, "ctr": SAME} | world
    return crossed(judge(one, *crowd(**drawn), Reading(), 1_000_100.0), one.guardrails)  # type: ignore[arg-type]


def test_a_sound_arm_is_not_stopped() -> None:
    assert stops(ALL) == []
    assert stops({}, ctr={"control": 0.1, "new": 0.0}, slow={"new": 1.0}, failed={"new": 1.0}) == []  # no limits


@pytest.mark.parametrize(
    ("world", "says"),
    [
        ({"slow": {"new": 0.04}}, ("p99 is 100 ms (control 10), limit 50 ms: ", "took longer, 1 % may")),
        ({"failed": {"new": 0.05}}, ("error rate is ", "(control 0.000%), limit 2.000%")),
        (
            {"pctr": {"control": 0.1, "new": 0.3}},
            ("calibration, clicks ÷ sum of pCTR, is 0.3", " times the control's (0.3", "limit 0.667 to 1.5"),
        ),
        ({"pctr": {"control": 0.3, "new": 0.1}}, ("calibration, clicks ÷ sum of pCTR, is ", "limit 0.667 to 1.5")),
        (
            {"ctr": {"control": 0.1, "new": 0.06}, "pctr": {"control": 0.1, "new": 0.06}},
            ("CTR against the control is -", "limit -10.00%"),
        ),
    ],
)
def test_each_limit_stops_and_says_value_interval_and_limit(world: dict[str, object], says: tuple[str, ...]) -> None:
    (one,) = stops(ALL, **world)
    assert (one.experiment, one.arm) == ("try", "new")
    for part in (*says, "[", "]"):
        assert part in one.why
    assert ";" not in one.why


@pytest.mark.parametrize("pctr", [0.02, 0.4])
def test_a_world_that_drifts_away_from_arm_and_control_alike_stops_nobody(pctr: float) -> None:
    """Clicks ÷ pCTR of both are far outside of 0.667 to 1.5, for certain."""
    limits: dict[str, object] = {"calibration": 1.5}
    one = experiment(guardrails=limits)
    arm = judge(one, *crowd(EVEN, SAME, pctr=pctr), Reading(), 1_000_100.0).arms[0]
    assert arm.calibration.low is not None
    assert arm.calibration.high is not None
    assert arm.calibration.low > 1.5 or arm.calibration.high < 1 / 1.5
    assert stops(limits, pctr=pctr) == []


def test_every_limit_that_was_crossed_is_named() -> None:
    (one,) = stops(ALL, ctr={"control": 0.1, "new": 0.0}, slow={"new": 1.0}, failed={"new": 1.0})
    assert [reason.split()[0] for reason in one.why.split("; ")] == ["p99", "error", "calibration,", "CTR"]


@pytest.mark.parametrize("limit", ["p99_ms", "error_rate", "calibration", "ctr_drop"])
def test_nothing_is_judged_before_there_is_enough(limit: str) -> None:
    bad = {"ctr": {"control": 0.1, "new": 0.0}, "slow": {"new": 1.0}, "failed": {"new": 1.0}}
    for enough, stopped in ((4_000, 1), (12_001, 0)):  # 4,000 requests, 12,000 impressions
        assert len(stops({limit: ALL[limit], "min_impressions": enough}, **bad)) == stopped


def test_beyond_the_limit_by_noise_is_not_enough() -> None:
    """Values beyond their limits, whose intervals reach back over them."""
    users = {"control": 300, "new": 300}
    one = experiment(guardrails=ALL | {"min_impressions": 100, "ctr_drop": 0.02})
    pctr = {"control": 0.1, "new": 0.055}
    tables = crowd(users, {"control": 0.1, "new": 0.09}, slow={"new": 0.02}, failed={"new": 0.03}, pctr=pctr, seed=5)
    verdict = judge(one, *tables, Reading(), 1_000_100.0)
    arm = verdict.arms[0]
    assert arm.p99_ms == 100.0
    assert arm.error_rate.value is not None
    assert arm.error_rate.value > 0.02
    assert arm.calibration_ratio.value is not None
    assert arm.calibration_ratio.value > 1.5
    assert arm.ctr_lift.value is not None
    assert arm.ctr_lift.value < -0.02
    assert crossed(verdict, one.guardrails) == []


def test_an_arm_that_is_stopped_is_not_stopped_again() -> None:
    bad = crowd(EVEN, {"control": 0.1, "new": 0.0})
    for changes in ({"arms": [{"name": "new", "weight": 0.5, "stopped": True}]}, {"stopped": True}):
        one = experiment(guardrails=ALL, **changes)
        assert crossed(judge(one, *bad, Reading(), 1_000_100.0), one.guardrails) == []


@dataclass
class Service:
    """A service of one process: stops what it is told to stop, as the state says it."""

    state: list[Experiment]
    reasons: list[str] = field(default_factory=list)

    def stop(self, experiment: str, arm: str | None, why: str, *, guardrail: bool = False) -> int:
        assert guardrail
        if experiment == "refused":
            raise ConnectionError("the service cannot be reached")
        self.reasons.append(why)
        for i, each in enumerate(self.state):
            if each.name == experiment:
                arms = tuple(one.model_copy(update={"stopped": one.stopped or one.name == arm}) for one in each.arms)
                self.state[i] = each.model_copy(update={"arms": arms})
        return len(self.reasons) + 1


def bad_tables(one: Experiment) -> Tables:
    if one.name == "unreadable":
        raise OSError("no such file: outcomes.parquet")
    requests, impressions = crowd(EVEN, {"control": 0.1, "new": 0.0})
    return requests.lazy(), impressions.lazy()


def test_an_arm_is_stopped_once_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    service = Service([experiment(guardrails=ALL)])
    guard = Guard(lambda: list(service.state), bad_tables, service, Reading())
    with caplog.at_level(logging.WARNING):
        (one,) = guard.look()
        assert guard.look() == []
    assert service.reasons == [one.why]
    assert service.state[0].arms[0].stopped
    assert caplog.messages == [f"stopped new of try by version 2: {one.why}"]


def test_what_fails_for_one_experiment_does_not_keep_others_from_being_judged(caplog: pytest.LogCaptureFixture) -> None:
    names = ("unreadable", "try", "over")
    service = Service([experiment(name=name, stopped=name == "over", guardrails=ALL) for name in names])
    stopped = Guard(lambda: list(service.state), bad_tables, service, Reading()).look()
    assert [each.experiment for each in stopped] == ["try"]
    assert "the guardrails of unreadable could not be held this time" in caplog.messages
    assert "no such file: outcomes.parquet" in caplog.text


def test_the_watch_looks_until_it_is_ended_and_outlives_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    service = Service([experiment(guardrails=ALL)])

    looks = 0

    def read() -> list[Experiment]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ConnectionError("the service cannot be reached")
        if looks == 3:
            ended.set()
        return list(service.state)

    Guard(read, bad_tables, service, Reading()).watch(0.001, ended)
    assert looks == 3
    assert len(service.reasons) == 1
    assert "the experiments could not be read this time" in caplog.messages
