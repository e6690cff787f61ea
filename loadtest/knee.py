"""The highest rate at which everything promised still holds: a closed loop says where to look, steps find it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from loadtest.histograms import Histogram
from loadtest.outcome import Outcome, described
from loadtest.slo import Judged, Slo, Verdict, judge

Measure = Callable[[float, str], Outcome]
"""Offers a rate for the time of a step; the text is for the display."""
SHARES = (0.3, 0.5, 0.7, 0.85, 1.0, 1.2)
"""Of what a closed loop of few clients reaches."""
SPLITS = 2
"""Further steps between the last rate that holds and the first that does not."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate."""

    rate: float
    outcome: Outcome
    judged: Judged

    def summary(self) -> dict[str, Any]:
        """For a file."""
        turns = self.outcome.stages.get("turn", Histogram())
        return {
            "rate": self.rate,
            "achieved_rate": round(self.outcome.achieved_rate, 3),
            "verdict": self.judged.verdict.value,
            "error_rate": self.outcome.error_rate,
            "degraded_rate": self.outcome.degraded_rate,
            "latency_ms": described(self.outcome.latency),
            "lag_p99_ms": round(self.outcome.lag.percentile(99), 3),
            "turn_ms": described(turns),
        }


@dataclass(frozen=True, slots=True)
class Knee:
    """What the steps found."""

    rate: float | None
    """Requests a second; None when no step held."""
    bounded: bool
    """Whether a higher rate was seen to fail. If not, the knee is at least `rate`."""
    steps: list[Step]
    """By rate."""

    def text(self) -> str:
        """In one line."""
        if self.rate is None:
            return f"no knee: at {self.steps[0].rate:.0f} requests/s already something did not hold"
        return f"the knee is at {'' if self.bounded else 'least '}{self.rate:.0f} requests/s"

    def summary(self) -> dict[str, Any]:
        """For a file."""
        return {"rate": self.rate, "bounded": self.bounded, "steps": [step.summary() for step in self.steps]}


def find_knee(measure: Measure, capacity: float, slo: Slo, splits: int = SPLITS) -> Knee:
    """`capacity`: requests a second of a closed loop. A step that does not hold, or cannot be judged, is tried once
    more: a moment of somebody else's work must not decide."""
    steps: list[Step] = []

    def at(rate: float) -> bool:
        for attempt in ("", ", again"):
            outcome = measure(rate, f"{rate:.0f}/s{attempt}")
            step = Step(rate, outcome, judge(outcome, slo))
            if step.judged.verdict is Verdict.PASS:
                break
        steps.append(step)
        return step.judged.verdict is Verdict.PASS

    good, bad = 0.0, None
    for share in SHARES:
        rate = capacity * share
        if not at(rate):
            bad = rate
            break
        good = rate
    while not good and bad is not None and bad > capacity * SHARES[0] / 8:
        bad /= 2
        good = bad if at(bad) else 0.0
    if good and bad is not None:
        bad = min(step.rate for step in steps if step.rate > good)
        for _ in range(splits):
            middle = (good + bad) / 2
            if at(middle):
                good = middle
            else:
                bad = middle
    failed = any(step.judged.verdict is Verdict.FAIL for step in steps if step.rate > good)
    return Knee(good or None, failed, sorted(steps, key=lambda step: step.rate))
