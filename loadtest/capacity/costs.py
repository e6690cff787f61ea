"""What one request costs one process, and the rules by which the process works."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadtest.capacity.measured import Measured

INTAKE_SHARE = 0.5
"""Of what a request takes besides its stages: reading and parsing it, before its turn; the rest is encoding and the
answer. A load test tells only the sum. Timers inside of the process, on the demo bundle, said 0.71 of 1.46 ms; a share
of 0.2 or 0.8 would move the knee by 6 %."""
REFUSAL_SHARE = 0.5
"""Of the intake: a refused request is read, but not parsed."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds."""

    turns_s: npt.NDArray[np.float64]
    """float64[n]: what was seen; a request's turn is any of them, each as likely."""
    finerank_share: float
    """Of a turn: what is left out when the deadline is near."""
    intake_s: float
    answer_s: float
    around_s: float = 0.0
    """Outside of the process: network, client. No other request waits for it."""
    slowness: tuple[tuple[float, float], ...] = ((1.0, 1.0),)
    """How many times as long everything in the process takes, at shares of the most that it can do, ascending. After a
    pause it is slower: 1.37 times at 0.3 in the load test that comes with the project (measured.json)."""

    @property
    def busy_s(self) -> float:
        """Of the process, a request on average, when it always has work."""
        return float(self.turns_s.mean()) + self.intake_s + self.answer_s

    @property
    def refusal_s(self) -> float:
        """Of the process, a request that is refused."""
        return self.intake_s * REFUSAL_SHARE

    def alone_s(self, percent: float) -> float:
        """A percentile of the latency of a request that meets no other."""
        return float(np.percentile(self.turns_s, percent)) + self.intake_s + self.answer_s + self.around_s

    def slowed_at(self, rate: float) -> float:
        """How many times as long everything takes when a process gets so many requests a second."""
        shares, times = zip(*self.slowness, strict=True)
        return float(np.interp(rate * self.busy_s, shares, times))

    def busy_at(self, rate: float) -> float:
        """Share of its time that a process works that gets so many requests a second; above 1: it cannot."""
        return rate * self.busy_s * self.slowed_at(rate)

    def slower(self, factor: float) -> "Costs":
        """The process takes `factor` times as long for everything."""
        return replace(
            self,
            turns_s=self.turns_s * factor,
            intake_s=self.intake_s * factor,
            answer_s=self.answer_s * factor,
        )

    def further(self, seconds: float) -> "Costs":
        """So much more network."""
        return replace(self, around_s=self.around_s + seconds)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the service, with its own defaults, and the rungs of its ladder."""

    max_in_flight: int = 64
    deadline_s: float = 0.2
    rungs: tuple[float, ...] = (1.0,)
    """Time of each fine-ranker, 1: of the best. Best first."""
    redis_s: float = 0.0
    """From asking Redis for a user to the answer; the process does other work meanwhile."""
    cache_hits: float = 0.0
    """Share of requests whose user is in memory."""


def costs_of(measured: Measured) -> Costs:
    """The turns as they were while the service always had work; what else a request takes is what the closed loop's
    rate leaves: `Server-Timing` does not see HTTP, but the rate does. Nothing is known yet of what lies around."""
    rest = measured.busy_s - float(measured.turns_s.mean())
    return Costs(
        measured.turns_s,
        measured.finerank_share,
        rest * INTAKE_SHARE,
        rest * (1 - INTAKE_SHARE),
        slowness=measured.slowness,
    )


def rules_of(measured: Measured, max_in_flight: int, deadline_s: float) -> Rules:
    """The rungs that the service said it has; one whose time is not known is as dear as the best."""
    times = [rung.expected_ms for rung in measured.test.footprint.rungs]
    best = times[0] if times else None
    rungs = tuple(each / best if each and best else 1.0 for each in times) or (1.0,)
    return Rules(max_in_flight, deadline_s, rungs)
