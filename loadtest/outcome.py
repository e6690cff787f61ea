"""What all generator processes together measured of one phase."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from loadtest.histograms import WINDOW_DIGITS, Histogram
from loadtest.plan import Part

OK = "200"
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9)


@dataclass(frozen=True, slots=True)
class Second:
    """What was due in one second."""

    at: int
    offered: int
    failed: int
    degraded: int
    latency: Histogram


@dataclass(frozen=True, slots=True)
class Outcome:
    """One phase. Latencies are of answers with status 200, counted from the intended start."""

    offered: int
    answered: int
    completed_in_time: int
    seconds: float
    statuses: dict[str, int]
    degraded: int
    reasons: dict[str, int]
    latency: Histogram
    uncorrected: Histogram
    lag: Histogram
    stages: dict[str, Histogram]
    bundles: dict[str, Histogram]
    windows: list[Second]
    processor: float
    """Share of a core of the busiest process."""
    unsent: int
    """Requests that were due and that no process managed to send."""

    @property
    def offered_rate(self) -> float:
        """Requests that were due a second."""
        return self.offered / self.seconds

    @property
    def achieved_rate(self) -> float:
        """Answers with status 200 a second."""
        return self.completed_in_time / self.seconds

    @property
    def error_rate(self) -> float:
        """Share of requests without an answer of status 200."""
        return (self.offered - self.answered) / self.offered if self.offered else 0.0

    @property
    def degraded_rate(self) -> float:
        """Share of the answers that had to do without something."""
        return self.degraded / self.answered if self.answered else 0.0

    def summary(self) -> dict[str, object]:
        """For a file: everything but the histograms' own counts."""
        return {
            "offered_rate": round(self.offered_rate, 3),
            "achieved_rate": round(self.achieved_rate, 3),
            "requests": self.offered,
            "seconds": round(self.seconds, 3),
            "statuses": self.statuses,
            "error_rate": self.error_rate,
            "degraded_rate": self.degraded_rate,
            "degraded": self.reasons,
            "latency_ms": described(self.latency),
            "uncorrected_ms": described(self.uncorrected),
            "lag_ms": described(self.lag),
            "generator_processor": round(self.processor, 3),
            "stages_ms": {name: described(each) for name, each in self.stages.items()},
            "bundles_ms": {name: described(each) for name, each in self.bundles.items()},
        }


def described(histogram: Histogram) -> dict[str, float]:
    """Count, mean, PERCENTILES and the largest, in milliseconds."""
    read = {f"p{percent:g}": round(histogram.percentile(percent), 3) for percent in PERCENTILES}
    return {"count": histogram.count, "mean": round(histogram.mean, 3), **read, "max": round(histogram.maximum, 3)}


def merge(parts: list[Part]) -> Outcome:
    """The parts of all processes. ValueError when there are none."""
    if not parts:
        raise ValueError("no process measured anything")

    def named(of: Callable[[Part], dict[str, str]]) -> dict[str, Histogram]:
        names = sorted({name for part in parts for name in of(part)})
        return {name: _sum(of(part)[name] for part in parts if name in of(part)) for name in names}

    return Outcome(
        offered=sum(part.offered for part in parts),
        answered=sum(part.answered for part in parts),
        completed_in_time=sum(part.completed_in_time for part in parts),
        seconds=max(part.seconds for part in parts),
        statuses=dict(sum((Counter(part.statuses) for part in parts), Counter())),
        degraded=sum(part.degraded for part in parts),
        reasons=dict(sum((Counter(part.reasons) for part in parts), Counter())),
        latency=_sum(part.latency for part in parts),
        uncorrected=_sum(part.uncorrected for part in parts),
        lag=_sum(part.lag for part in parts),
        stages=named(lambda part: part.stages),
        bundles=named(lambda part: part.bundles),
        windows=[_second(at, parts) for at in sorted({at for part in parts for at in part.windows})],
        processor=max(part.processor for part in parts),
        unsent=sum(part.unsent for part in parts),
    )


def _second(at: int, parts: list[Part]) -> Second:
    those = [part.windows[at] for part in parts if at in part.windows]
    return Second(
        at=at,
        offered=sum(each.offered for each in those),
        failed=sum(each.failed for each in those),
        degraded=sum(each.degraded for each in those),
        latency=_sum((each.latency for each in those), WINDOW_DIGITS),
    )


def _sum(encoded: Iterable[str], digits: int = 3) -> Histogram:
    total = Histogram(digits)
    for each in encoded:
        total.add(Histogram.decode(each, digits))
    return total


def between(outcome: Outcome, begin: float, end: float) -> Outcome:
    """The whole seconds from `begin` to `end` alone, by when requests were due. Latencies are within 1 %; stages,
    bundles and what concerns the generator are those of all of it. ValueError when there is no whole second."""
    first, last = math.ceil(begin), math.floor(end)
    if last <= first:
        raise ValueError(f"there is no whole second between {begin:g} and {end:g} s")
    those = [each for each in outcome.windows if first <= each.at < last]
    latency = Histogram(WINDOW_DIGITS)
    for each in those:
        latency.add(each.latency)
    failed = sum(each.failed for each in those)
    offered = sum(each.offered for each in those)
    return replace(
        outcome,
        offered=offered,
        answered=offered - failed,
        completed_in_time=offered - failed,
        seconds=float(last - first),
        statuses={OK: offered - failed} | ({"failed": failed} if failed else {}),
        degraded=sum(each.degraded for each in those),
        latency=latency,
        windows=those,
    )
