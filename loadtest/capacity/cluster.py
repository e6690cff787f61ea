"""Many processes, requests dealt to them, and what became of each request.

Dealt at random, the requests of each process are a Poisson process of their own and processes know nothing of each
other: any number of them behaves like a few at the same rate each, so a few are simulated. Dealt to whoever has the
fewest requests under way, they depend on each other and are simulated together.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import simpy

from loadtest.arrivals import constant, times
from loadtest.capacity.costs import Costs, Rules
from loadtest.capacity.worker import Process, Visit, Worker
from loadtest.histograms import Histogram
from loadtest.outcome import OK, Outcome

LOST_STATUS = "no answer"
"""Beside the statuses of HTTP."""
Balancing = Literal["random", "round-robin", "least-requests"]
BALANCINGS: tuple[Balancing, ...] = get_args(Balancing)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Processes that are alike, and how requests are dealt to them."""

    costs: Costs
    rules: Rules = field(default_factory=Rules)
    workers: int = 1
    balancing: Balancing = "random"


@dataclass(frozen=True, slots=True)
class Loss:
    """The first `workers` processes are gone from then on, with the requests they had; new ones go to the others."""

    at_s: float
    workers: int


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the requests, in the order in which they were due. Those due in the warm-up are left out."""

    due_s: npt.NDArray[np.float64]
    latency_s: npt.NDArray[np.float64]
    """NaN: refused or lost."""
    degraded: npt.NDArray[np.bool_]
    statuses: dict[str, int]
    warm_up_s: float
    end_s: float
    busy: float
    """Share of the time that the processes worked."""

    def outcome(self) -> Outcome:
        """As a load test would have measured it, with a generator that is never late."""
        fine = ~np.isnan(self.latency_s)
        ended = self.due_s + self.latency_s
        latency = Histogram.of((self.latency_s[fine] * 1e3).tolist())
        return Outcome(
            offered=len(self.due_s),
            answered=int(fine.sum()),
            completed_in_time=int((fine & (ended <= self.end_s)).sum()),
            seconds=self.end_s - self.warm_up_s,
            statuses=self.statuses,
            degraded=int(self.degraded[fine].sum()),
            reasons={},
            latency=latency,
            uncorrected=latency,
            lag=Histogram(),
            stages={},
            bundles={},
            windows=[],
            processor=0.0,
            unsent=0,
        )


Balancer = Callable[[list[Worker]], Worker]
"""Chooses a process for a request, of those that are alive."""


def open_loop(
    cluster: Cluster, rate: float, seconds: float, seed: int, warm_up_s: float = 0.0, loss: Loss | None = None
) -> Run:
    """Poisson arrivals, `rate` a second to all processes together, for `seconds` after the warm-up."""
    env, workers = _started(cluster, seed)
    due = times(constant(rate, warm_up_s + seconds), seed)
    turns = np.random.default_rng((seed, 1)).choice(cluster.costs.turns_s, len(due))  # not the arrivals' numbers
    visits = [Visit(at, turn) for at, turn in zip(due.tolist(), turns.tolist(), strict=True)]
    alive = list(workers)
    _deal(cluster.costs, alive, rate)
    choose = _balancer(cluster.balancing, Random(seed))

    def arrive() -> Process:
        for visit in visits:
            yield env.timeout(visit.due - env.now)
            choose(alive).offer(visit)

    def lose(what: Loss) -> Process:
        yield env.timeout(what.at_s)
        for worker in alive[: what.workers]:
            worker.lose()
        del alive[: what.workers]
        _deal(cluster.costs, alive, rate)

    env.process(arrive())
    if loss is not None:
        env.process(lose(loss))
    env.run()
    counted = [visit for visit in visits if visit.due >= warm_up_s]
    return _run(counted, warm_up_s, warm_up_s + seconds, sum(each.busy_s for each in workers) / len(workers) / env.now)


def closed_loop(cluster: Cluster, clients: int, seconds: float, seed: int) -> float:
    """Requests a second that clients get answered who send the next request as soon as they have an answer."""
    env, workers = _started(cluster, seed)
    random, turns, answered = Random(seed), cluster.costs.turns_s.tolist(), 0
    choose = _balancer(cluster.balancing, Random(seed))

    def client() -> Process:
        nonlocal answered
        while env.now < seconds:
            visit = Visit(env.now, random.choice(turns), over=env.event())
            choose(workers).offer(visit)
            assert visit.over is not None
            yield visit.over
            answered += not visit.refused and env.now <= seconds

    for _ in range(clients):
        env.process(client())
    env.run()
    return answered / seconds


def _deal(costs: Costs, alive: list[Worker], rate: float) -> None:
    for worker in alive:
        worker.slowed = costs.slowed_at(rate / len(alive))


def _started(cluster: Cluster, seed: int) -> tuple[simpy.Environment, list[Worker]]:
    env = simpy.Environment()
    return env, [Worker(env, cluster.costs, cluster.rules, Random(seed + i)) for i in range(cluster.workers)]


def _balancer(balancing: Balancing, random: Random) -> Balancer:
    turn = 0

    def in_turn(alive: list[Worker]) -> Worker:
        nonlocal turn
        turn += 1
        return alive[turn % len(alive)]

    def fewest(alive: list[Worker]) -> Worker:
        least = min(each.outstanding for each in alive)
        return random.choice([each for each in alive if each.outstanding == least])

    ways: dict[Balancing, Balancer] = {"random": random.choice, "round-robin": in_turn, "least-requests": fewest}
    return ways[balancing]


def _run(visits: list[Visit], begin: float, end: float, busy: float) -> Run:
    statuses = {OK: 0, "429": 0, LOST_STATUS: 0}
    for visit in visits:
        statuses[LOST_STATUS if visit.end is None else "429" if visit.refused else OK] += 1
    latency = [np.nan if visit.end is None or visit.refused else visit.end - visit.due for visit in visits]
    return Run(
        due_s=np.array([visit.due for visit in visits]),
        latency_s=np.array(latency, dtype=np.float64),
        degraded=np.array([visit.degraded for visit in visits], dtype=np.bool_),
        statuses={name: count for name, count in statuses.items() if count},
        warm_up_s=begin,
        end_s=end,
        busy=busy,
    )
