"""Arms against the control: differences, lifts, and what is missing before they may be read."""

import numpy as np

from control.state import CONTROL, Experiment
from outcomes.arm_users import PASTS, Column
from outcomes.results import Difference, Interval, Metric, Reading
from outcomes.statistics.moments import Float64, Moments
from outcomes.statistics.ratios import Rate, difference, lift, rates
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


def expected_clickers(arm: Float64, control: Float64, clickers: Float64) -> Float64:
    """Users that click in the smaller of two arms, of so many users each, if both were alike and shared `clickers`.
    What the arm's own clickers are does not matter: an arm without any click must not wait for ever."""
    found: Float64 = clickers * np.minimum(arm, control) / (arm + control)
    return found
