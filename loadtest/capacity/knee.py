"""The simulation's knee, found as the load test finds the service's: the same steps, and the same judge of each."""

from dataclasses import replace

from loadtest.capacity.cluster import Balancing, Cluster, closed_loop, open_loop
from loadtest.capacity.costs import Costs, Rules, costs_of
from loadtest.capacity.errors import CapacityError
from loadtest.capacity.measured import Measured
from loadtest.knee import SPLITS, Knee, find_knee
from loadtest.outcome import Outcome
from loadtest.scenarios import CLIENTS
from loadtest.slo import Slo

TOGETHER = 16
"""Processes that are simulated together where they depend on each other. With 64 of them each may get 4 % more."""
CLOSED_REQUESTS = 200
"""Of the closed loop, for each process."""
WARM_UP = 0.05
"""Share of the requests of a step."""


def knee_of(cluster: Cluster, slo: Slo, requests: int, seed: int, splits: int = SPLITS) -> Knee:
    """`requests`: of each step, so that its 99th percentile is known well enough. Rates are of all processes together.
    CapacityError where a request alone takes longer than promised."""
    costs = cluster.costs
    reading_s = cluster.rules.redis_s if cluster.rules.cache_hits < 1 else 0.0
    if (least_ms := (costs.alone_s(99) + reading_s) * 1e3) > slo.p99_ms:
        raise CapacityError(
            f"p99 {slo.p99_ms:g} ms cannot be reached, however many processes there are: 1 % of the requests take "
            f"{least_ms:.1f} ms or more although they wait for no other"
        )
    seconds = CLOSED_REQUESTS * costs.busy_s
    capacity = closed_loop(cluster, CLIENTS * cluster.workers, seconds, seed)
    asked = 0

    def measure(rate: float, _: str) -> Outcome:
        nonlocal asked
        asked += 1
        seconds = requests / rate
        return open_loop(cluster, rate, seconds, seed + asked, seconds * WARM_UP).outcome()

    return find_knee(measure, capacity, slo, splits)


def process_of(measured: Measured, rules: Rules, requests: int = 10_000, seed: int = 1) -> Costs:
    """What a request costs, and what lies around the process: the median of the slowest step, less what the model
    makes of that rate without anything around."""
    costs = costs_of(measured)
    step = measured.test.knee.slowest
    cluster = Cluster(costs, rules, measured.test.footprint.workers)
    run = open_loop(cluster, step.rate, requests / step.rate, seed).outcome()
    return replace(costs, around_s=max(step.latency_ms.p50 - run.latency.percentile(50), 0.0) / 1e3)


def knee_of_process(costs: Costs, rules: Rules, balancing: Balancing, slo: Slo, requests: int, seed: int) -> float:
    """Requests a second of one process of many, as they are dealt. CapacityError when no rate holds."""
    many = 1 if balancing == "random" else TOGETHER
    knee = knee_of(Cluster(costs, rules, many, balancing), slo, requests, seed, splits=4)
    if knee.rate is None:
        slowest = knee.steps[0]
        raise CapacityError(
            f"p99 {slo.p99_ms:g} ms cannot be reached: with {slowest.rate / many:.0f} requests/s for a process p99 is "
            f"{slowest.outcome.latency.percentile(99):.1f} ms, degraded {slowest.outcome.degraded_rate:.2%}, errors "
            f"{slowest.outcome.error_rate:.2%}"
        )
    return knee.rate / many
