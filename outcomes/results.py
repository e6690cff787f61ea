"""What an experiment is read by, and what is said of it: plain values, as JSON too."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from control.state import Frozen
from outcomes.statistics.ratios import Estimate

Metric = Literal["ctr", "ecpm"]
Decision = Literal["better", "worse", "no difference yet", "mismatch: do not read"]


class Reading(Frozen):
    """How experiments are read. To be settled before they start."""

    metric: Metric = "ctr"
    """Decides."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """Probability that an experiment without any difference ever says "better" or "worse", all its arms together."""
    srm_alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability that a sound experiment ever says "mismatch"."""
    guard_alpha: float = Field(default=0.01, gt=0, lt=0.5)
    """Probability that a guardrail ever stops an arm that is exactly at its limit; below the limit it is less."""
    planned_impressions: int = Field(default=20_000, ge=1)
    """Of arm and control together; there the intervals are tightest. Twenty times as many cost 10 % of width."""
    min_users: int = Field(default=100, ge=2)
    """In each of the two arms, before they are compared."""
    min_clickers: int = Field(default=20, ge=1)
    """Users that click, expected in the smaller of two arms if both were alike, before they are compared."""
    past_days: float = Field(default=28.0, ge=0)
    """How much of a user's past before the experiment narrows the intervals (CUPED); 0: none."""
    most_moved: float = Field(default=0.01, ge=0, le=1)
    """Share of users seen in two arms from which on the experiment is not read."""


class Result(BaseModel):
    """Frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Result):
    """A value and bounds that hold at every look. None where the data do not say."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> "Interval":
        """Of one estimate."""
        return cls(value=_finite(estimate.value), low=_finite(estimate.low), high=_finite(estimate.high))


class Difference(Result):
    """An arm against the control, by one metric."""

    metric: Metric
    absolute: Interval
    """Arm minus control."""
    lift: Interval
    """Arm ÷ control − 1."""
    explained: float | None
    """Share of the variance that users' past took away. None without a past."""


class ArmVerdict(Result):
    """One arm, or the control."""

    name: str
    stopped: bool
    users: int
    impressions: int
    clicks: int
    revenue: float
    ctr: float | None
    ecpm: float | None
    calibration: Interval
    """Clicks ÷ sum of pCTR, bounds at `guard_alpha`."""
    requests: int
    failed: int
    degraded: int
    p50_ms: float | None
    p99_ms: float | None
    error_rate: Interval
    """Share of requests that failed, bounds at `guard_alpha`."""
    slow: Interval
    """Share of requests above the guardrail's `p99_ms`, bounds at `guard_alpha`. None without that limit."""
    differences: tuple[Difference, ...] = ()
    """None for the control, and before `min_users` and `min_clickers`."""
    ctr_lift: Interval = Interval()
    """CTR ÷ that of the control − 1, bounds at `guard_alpha`."""
    calibration_ratio: Interval = Interval()
    """Calibration ÷ that of the control, bounds at `guard_alpha`."""
    decision: Decision | None = None
    """None for the control."""
    note: str = ""
    """Why there is no decision."""


class Verdict(Result):
    """An experiment as of one look."""

    experiment: str
    at: float
    """Unix seconds."""
    metric: Metric
    alpha: float
    control: ArmVerdict
    arms: tuple[ArmVerdict, ...]
    srm_log_e: float | None
    """Natural logarithm of the evidence that users do not come in the stated shares. None below two running arms."""
    srm_limit: float
    """From here on it is a mismatch: log(1 / srm_alpha)."""
    moved: int
    """Users seen in more than one arm."""
    mismatch: str = ""
    """What is wrong with the experiment itself; empty when nothing is."""

    def arm(self, name: str) -> ArmVerdict:
        """KeyError when there is none of this name."""
        found = {each.name: each for each in (self.control, *self.arms)}
        return found[name]


def _finite(value: object) -> float | None:
    number = float(np.asarray(value))
    return number if np.isfinite(number) else None
