"""What the benchmark of the closed loop says of verdicts and of arms that were stopped."""

import pytest

from benchmarks.closed_loop import compare, guard
from benchmarks.report import Report
from outcomes.results import ArmVerdict, Difference, Interval, Verdict

NOTHING = Interval()


def arm(name: str, lift: Interval | None = None, decision: str = "no difference yet") -> ArmVerdict:
    differences = () if lift is None else (Difference(metric="ctr", absolute=NOTHING, lift=lift, explained=None),)
    values = {"name": name, "stopped": False, "users": 9, "impressions": 90, "clicks": 9, "revenue": 1.0}
    values |= {"ctr": 0.1, "ecpm": 0.1, "calibration": NOTHING, "requests": 9, "failed": 0, "degraded": 0}
    values |= {"p50_ms": 1.0, "p99_ms": 2.0, "error_rate": NOTHING, "slow": NOTHING, "note": "too few users"}
    return ArmVerdict.model_validate(values | {"differences": differences, "decision": decision})


def verdict(name: str, *arms: ArmVerdict, mismatch: str = "") -> Verdict:
    values = {"experiment": name, "at": 1.0, "metric": "ctr", "alpha": 0.05, "srm_log_e": 0.0, "srm_limit": 4.6}
    return Verdict.model_validate(values | {"moved": 0, "mismatch": mismatch, "control": arm("control"), "arms": arms})


def told(**arms: float) -> dict[str, float]:
    return {f"simulate.{name.replace('__', '.')}.true_lift": value for name, value in arms.items()}


def test_an_interval_covers_the_truth_or_does_not() -> None:
    report = Report("closed-loop")
    low = Interval(value=-0.1, low=-0.2, high=-0.05)
    verdicts = {"quality": verdict("quality", arm("tenth", low, "worse")), "aa": verdict("aa", arm("same", low))}
    compare(report, verdicts, {"tenth": -0.12}, told(quality__tenth=-0.11, aa__same=0.01))
    figures = report.figures
    assert (figures["closed_loop.tenth.covered"], figures["closed_loop.same.covered"]) == (1.0, 0.0)
    assert figures["closed_loop.covered"] == 0.5
    assert (figures["closed_loop.tenth.true_lift"], figures["closed_loop.same.true_lift"]) == (-0.12, 0.0)
    assert figures["closed_loop.aa.quiet"] == 1.0
    assert [row[-2:] for row in report.tables[0].rows] == [("yes", "worse"), ("NO", "no difference yet")]


@pytest.mark.parametrize(("decision", "mismatch"), [("better", ""), ("no difference yet", "users came as 1, 9")])
def test_an_aa_experiment_that_says_something_is_not_quiet(decision: str, mismatch: str) -> None:
    report = Report("closed-loop")
    wide = Interval(value=0.0, low=-0.2, high=0.2)
    verdicts = {"aa": verdict("aa", arm("same", wide, decision), mismatch=mismatch)}
    compare(report, verdicts, {}, told(aa__same=0.0))
    assert report.figures["closed_loop.aa.quiet"] == 0.0


def test_without_an_interval_more_visits_are_asked_for() -> None:
    with pytest.raises(ValueError, match="same: there is no interval: too few users; more --visits are needed"):
        compare(Report("closed-loop"), {"aa": verdict("aa", arm("same"))}, {}, told(aa__same=0.0))


def test_an_arm_that_was_not_stopped_is_told() -> None:
    report = Report("closed-loop")
    guard(report, {"offset": 500}, {"offset": "calibration is 0.3"})
    rows = [("untrained", "never", "-"), ("offset", 500, "calibration is 0.3"), ("sound", "never", "-")]
    assert report.tables[0].rows == rows
    assert report.figures == {
        "closed_loop.untrained.stopped": 0.0,
        "closed_loop.offset.stopped": 1.0,
        "closed_loop.offset.visits": 500,
        "closed_loop.sound.stopped": 0.0,
    }
