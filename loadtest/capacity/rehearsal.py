"""The plan under its load: all zones, then the loss of those that may be lost.

A sample of the processes gets its share of the requests: exact for requests that are dealt at random, a smaller cluster
of the same load for the other ways.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.capacity.cluster import LOST_STATUS, Cluster, Loss, Run, open_loop
from loadtest.capacity.sizing import Plan, Process
from loadtest.capacity.wanted import Wanted

A_ZONE = 8
"""Processes of each zone in the sample."""
REQUESTS = 1.5
"""Times those that are simulated at each rate."""
LOST, SETTLED = 0.5, 0.55
"""Shares of the time: when the loss comes, and from when on it counts as settled."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the rehearsal."""

    name: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    busy: float
    """Share of the time that the processes worked."""
    degraded_rate: float
    error_rate: float


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What the sample did."""

    processes: int
    rate: float
    """Requests a second of the sample."""
    lost_at_s: float
    lost: float
    """Requests that are under way when the zones are lost, of all processes of the plan."""
    stretches: list[Stretch]
    seconds: npt.NDArray[np.float64]
    """float64[t]: middles of slices of time."""
    p50_ms: npt.NDArray[np.float64]
    p99_ms: npt.NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """For a file."""
        curve = zip(self.seconds.tolist(), self.p50_ms.tolist(), self.p99_ms.tolist(), strict=True)
        return {
            "processes": self.processes,
            "rate": self.rate,
            "lost_at_s": self.lost_at_s,
            "lost": self.lost,
            "stretches": [asdict(each) for each in self.stretches],
            "over_time": [{"s": at, "p50_ms": p50, "p99_ms": p99} for at, p50, p99 in curve],
        }


def rehearse(plan: Plan, one: Process, wanted: Wanted) -> Rehearsal:
    """Simulate both halves in one run."""
    processes = A_ZONE * wanted.zones
    rate = wanted.rps * processes / (plan.replicas * wanted.workers)
    cluster = Cluster(one.costs, one.rules, processes, wanted.balancing)
    seconds = REQUESTS * wanted.requests / rate
    loss = Loss(seconds * LOST, A_ZONE * wanted.zones_lost) if wanted.zones_lost else None
    run = open_loop(cluster, rate, seconds, wanted.seed, seconds * 0.02, loss)
    begin, middle, settled = run.warm_up_s, seconds * LOST, seconds * SETTLED
    each = rate / processes
    stretches = [_stretch("all zones", run, begin, seconds * (2 * LOST - SETTLED), one.costs.busy_at(each))]
    if wanted.zones_lost:
        fewer = one.costs.busy_at(each * wanted.zones / (wanted.zones - wanted.zones_lost))
        name = "a zone lost" if wanted.zones_lost == 1 else f"{wanted.zones_lost} zones lost"
        stretches.append(_stretch(name, run, settled, run.end_s, fewer))
    edges = np.linspace(begin, run.end_s, 41)
    slices = [run.latency_s[(run.due_s >= low) & (run.due_s < high)] * 1e3 for low, high in pairwise(edges)]
    return Rehearsal(
        processes=processes,
        rate=rate,
        lost_at_s=middle,
        lost=run.statuses.get(LOST_STATUS, 0) * plan.replicas * wanted.workers / processes,
        stretches=stretches,
        seconds=(edges[:-1] + edges[1:]) / 2,
        p50_ms=np.array([np.nanpercentile(each, 50) for each in slices]),
        p99_ms=np.array([np.nanpercentile(each, 99) for each in slices]),
    )


def _stretch(name: str, run: Run, begin: float, end: float, busy: float) -> Stretch:
    those = (run.due_s >= begin) & (run.due_s < end)
    latency = run.latency_s[those] * 1e3
    p50, p95, p99 = np.nanpercentile(latency, (50, 95, 99)).tolist()
    answered = ~np.isnan(latency)
    degraded = float(run.degraded[those][answered].mean())
    return Stretch(name, p50, p95, p99, busy, degraded, float(1 - answered.mean()))
