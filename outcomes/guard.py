"""Guardrails: stops arms that cross a limit, through the service's admin endpoints, and says why in numbers.

A limit is crossed when the whole interval lies beyond it. An arm that is exactly at the limit is ever stopped with a
probability of at most `guard_alpha`, however often one looks: no arm is stopped for a minute of bad luck. Limits hold
whatever the verdict is, a mismatch included: to stop an arm never does harm.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from time import time
from typing import Protocol

import polars as pl

from control.state import Experiment, Guardrails
from outcomes.results import ArmVerdict, Interval, Reading, Verdict
from outcomes.verdict import judge

log = logging.getLogger(__name__)
Tables = tuple[pl.LazyFrame, pl.LazyFrame]
"""Requests and impressions, those of some weeks before the experiment included: they are users' past."""


class Stopper(Protocol):
    """The part of `control.client.Admin` that is needed here."""

    def stop(self, experiment: str, arm: str | None, why: str, *, guardrail: bool = False) -> int:
        """Stop an arm; the version of the state from then on."""


@dataclass(frozen=True, slots=True)
class Crossed:
    """An arm beyond at least one limit."""

    experiment: str
    arm: str
    why: str
    """Every limit that it crossed: name, value, interval, limit, and the control's value."""


def crossed(verdict: Verdict, guardrails: Guardrails) -> list[Crossed]:
    """Running arms beyond a limit."""
    return [
        Crossed(verdict.experiment, arm.name, "; ".join(reasons))
        for arm in verdict.arms
        if not arm.stopped and (reasons := list(_reasons(arm, verdict.control, guardrails)))
    ]


def _reasons(arm: ArmVerdict, control: ArmVerdict, guard: Guardrails) -> Iterator[str]:
    enough = guard.min_impressions
    if arm.requests >= enough:
        if guard.p99_ms is not None and _above(arm.slow, 0.01):
            yield (
                f"p99 is {arm.p99_ms:.3g} ms (control {_number(control.p99_ms)}), limit {guard.p99_ms:g} ms: "
                f"{_percent(arm.slow)} of {arm.requests:,} requests took longer, 1 % may"
            )
        if guard.error_rate is not None and _above(arm.error_rate, guard.error_rate):
            yield (
                f"error rate is {_percent(arm.error_rate)} of {arm.requests:,} requests "
                f"(control {_share(control.error_rate.value)}), limit {guard.error_rate:.3%}"
            )
    if arm.impressions >= enough:
        if (limit := guard.calibration) is not None and control.impressions >= enough:
            found = arm.calibration_ratio
            if _above(found, limit) or _below(found, 1.0 / limit):
                yield (
                    f"calibration, clicks ÷ sum of pCTR, is {_number(found.value)} {_bounds(found)} times "
                    f"the control's ({_number(arm.calibration.value)} on {arm.impressions:,} impressions, control "
                    f"{_number(control.calibration.value)} on {control.impressions:,}), limit {1.0 / limit:.3g} to "
                    f"{limit:.3g}"
                )
        if (limit := guard.ctr_drop) is not None and control.impressions >= enough and _below(arm.ctr_lift, -limit):
            yield (
                f"CTR against the control is {_signed(arm.ctr_lift)} ({_share(arm.ctr)} of {arm.impressions:,} "
                f"impressions, control {_share(control.ctr)} of {control.impressions:,}), limit {-limit:+.2%}"
            )


class Guard:
    """Looks at all experiments, and stops what crossed a limit."""

    def __init__(
        self,
        experiments: Callable[[], Iterable[Experiment]],
        tables: Callable[[Experiment], Tables],
        stopper: Stopper,
        reading: Reading,
        clock: Callable[[], float] = time,
    ) -> None:
        """`experiments`: those of the agreed state. `clock`: Unix seconds."""
        self.experiments, self.tables = experiments, tables
        self.stopper, self.reading, self.clock = stopper, reading, clock

    def look(self) -> list[Crossed]:
        """Judge every running experiment once; the arms that were stopped. When one experiment's data cannot be read,
        or the service does not stop its arm, that is logged and the others are judged all the same."""
        stopped: list[Crossed] = []
        for experiment in self.experiments():
            if experiment.stopped:
                continue
            try:
                stopped += self._stop(experiment)
            except Exception:
                log.exception("the guardrails of %s could not be held this time", experiment.name)
        return stopped

    def watch(self, every_s: float, ended: threading.Event) -> None:
        """Look until `ended`, every `every_s` seconds. A look that fails is logged, and the next one tries again."""
        while not ended.wait(every_s):
            try:
                self.look()
            except Exception:
                log.exception("the experiments could not be read this time")

    def _stop(self, experiment: Experiment) -> list[Crossed]:
        requests, impressions = self.tables(experiment)
        verdict = judge(experiment, requests, impressions, self.reading, self.clock())
        found = crossed(verdict, experiment.guardrails)
        for each in found:
            version = self.stopper.stop(each.experiment, each.arm, each.why, guardrail=True)
            log.warning("stopped %s of %s by version %d: %s", each.arm, each.experiment, version, each.why)
        return found


def _above(found: Interval, limit: float) -> bool:
    return found.low is not None and found.low > limit


def _below(found: Interval, limit: float) -> bool:
    return found.high is not None and found.high < limit


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3%}"


def _bounds(found: Interval) -> str:
    return f"[{_number(found.low)}, {_number(found.high)}]"


def _percent(found: Interval) -> str:
    return f"{_share(found.value)} [{_share(found.low)}, {_share(found.high)}]"


def _signed(found: Interval) -> str:
    value, low, high = ("unknown" if each is None else f"{each:+.2%}" for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"
