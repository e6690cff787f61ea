"""Arms against the control: differences, lifts, and what is missing before they may be read."""

import numpy as np

from control.state import CONTROL, Experiment
from outcomes.arm_users import PASTS, Column
from outcomes.results import Difference, Interval, Metric, Reading
from outcomes.statistics.moments import Float64, Moments
from outcomes.statistics.ratios import Estimate, Rate, difference, lift, rates
from outcomes.statistics.sequences import width

METRICS: dict[Metric, tuple[Column, Column]] = {
    "ctr": (Column.CLICKS, Column.IMPRESSIONS),
    "ecpm": (Column.REVENUE, Column.IMPRESSIONS),
}
"""Numerator and denominator. eCPM is in the unit of the answers' `ecpm`: bids of clicked ads, an impression."""


class Comparison:
    """Arms against the control."""

    def __init__(self, experiment: Experiment, moments: dict[str, Moments], reading: Reading) -> None:
        self.moments, self.reading = moments, reading
        self.alpha = reading.alpha / len(experiment.arms)
        past = any(each.total[Column.PAST] > 0 for each in moments.values())
        self.adjusted = {metric: self._rates(metric, PASTS if past else ()) for metric in METRICS}
        self.plain = {metric: self._rates(metric, ()) for metric in METRICS} if past else {}

    def differences(self, arm: str) -> tuple[Difference, ...]:
        """By each metric; none before there are users enough."""
        if self.short_of(arm):
            return ()
        wide = width(np.asarray(self._seen(arm)), self.reading.planned_impressions, self.alpha)
        found = []
        for metric, by_arm in self.adjusted.items():
            rate, control = by_arm[arm], by_arm[CONTROL]
            absolute = Interval.of(difference(rate, control, wide))
            explained = self._explained(metric, arm)
            relative = Interval.of(lift(rate, control, wide))
            found.append(Difference(metric=metric, absolute=absolute, lift=relative, explained=explained))
        return tuple(found)

    def guarded_lift(self, arm: str) -> Interval:
        """Of the CTR, at the guardrails' level."""
        if self.short_of(arm):
            return Interval()
        wide = width(np.asarray(self._seen(arm)), self.reading.planned_impressions, self.reading.guard_alpha)
        return Interval.of(lift(self.adjusted["ctr"][arm], self.adjusted["ctr"][CONTROL], wide))

    def guarded_calibration(self, arm: str) -> Interval:
        """Calibration of the arm ÷ that of the control, at the guardrails' level. What drifts drifts in both."""
        if self.short_of(arm):
            return Interval()
        wide = width(np.asarray(self._seen(arm)), self.reading.planned_impressions, self.reading.guard_alpha)
        return Interval.of(calibration_ratio(self.moments[arm], self.moments[CONTROL], wide))

    def short_of(self, arm: str) -> str:
        """What is missing for a comparison; empty when nothing is."""
        two = [self.moments[arm], self.moments[CONTROL]]
        users = [float(each.users) for each in two]
        if min(users) < self.reading.min_users:
            names = (arm, CONTROL)
            few = int(np.argmin(users))
            return f"{names[few]} has {users[few]:,.0f} users, {self.reading.min_users:,} are needed"
        clickers = sum(each.total[Column.CLICKED] for each in two)
        expected = float(expected_clickers(two[0].users, two[1].users, np.asarray(clickers)))
        if expected < self.reading.min_clickers:
            return f"{expected:,.1f} users that click are expected in an arm, {self.reading.min_clickers:,} are needed"
        return ""

    def _rates(self, metric: Metric, past: tuple[Column, ...]) -> dict[str, Rate]:
        return dict(zip(self.moments, rates(list(self.moments.values()), *METRICS[metric], past), strict=True))

    def _seen(self, arm: str) -> float:
        return float(sum(self.moments[name].total[Column.IMPRESSIONS] for name in (arm, CONTROL)))

    def _explained(self, metric: Metric, arm: str) -> float | None:
        if not self.plain:
            return None
        both = [sum(rate[metric][name].variance for name in (arm, CONTROL)) for rate in (self.adjusted, self.plain)]
        return float(1.0 - both[0] / both[1]) if both[1] > 0 else None


def calibration(arm: Moments) -> Rate:
    """Clicks ÷ promised clicks. They vary at least as a Poisson count of one more does: no click is no certainty."""
    (kept,) = rates([arm], Column.KEPT, Column.PROMISED)
    promised = arm.total[..., Column.PROMISED]
    some = promised > 0
    least = np.where(some, (arm.total[..., Column.KEPT] + 1.0) / np.where(some, promised, 1.0) ** 2, np.nan)
    return Rate(kept.value, np.maximum(kept.variance, least))


def calibration_ratio(arm: Moments, control: Moments, width: Float64) -> Estimate:
    """Calibration of the arm ÷ that of the control: all ratios r that arm − r · control does not tell from 0 (Fieller),
    where neither one's variance for a user, measured by the square of its calibration, counts as smaller than that of
    both together; the arm's calibration is r · control's there. By its own variance an arm of a tenth of the users that
    was exactly at a limit was stopped in 3.7 % of the experiments, at a level of 1 %: what hardly anybody happened to
    click in seems sure of it."""
    two = [calibration(each) for each in (arm, control)]
    users = [np.maximum(each.users, 1.0) for each in (arm, control)]
    least = _relative_variance(two, users)
    a, c = two[0].value, two[1].value
    known = Rate(c, np.maximum(two[1].variance, least * c**2 / users[1]))
    found = lift(two[0], known, width)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = width * np.sqrt(known.variance + least * c**2 / users[0])
        high = np.where(c > half, a / (c - half), np.inf)
        return Estimate(a / c, np.minimum(found.low + 1.0, a / (c + half)), np.maximum(found.high + 1.0, high))


def _relative_variance(two: list[Rate], users: list[Float64]) -> Float64:
    """Of a user, by the square of its arm's value: of both arms together. Without clicks an arm tells nothing of it."""
    whole, freedom = np.zeros_like(two[0].value), np.zeros_like(two[0].value)
    for rate, count in zip(two, users, strict=True):
        clicked = rate.value > 0
        own = np.where(clicked, count * rate.variance / np.where(clicked, rate.value, 1.0) ** 2, 0.0)
        whole += (count - 1.0) * own
        freedom += np.where(clicked, count - 1.0, 0.0)
    found: Float64 = whole / np.maximum(freedom, 1.0)
    return found


def expected_clickers(arm: Float64, control: Float64, clickers: Float64) -> Float64:
    """Users that click in the smaller of two arms, of so many users each, if both were alike and shared `clickers`.
    What the arm's own clickers are does not matter: an arm without any click must not wait for ever."""
    found: Float64 = clickers * np.minimum(arm, control) / (arm + control)
    return found
