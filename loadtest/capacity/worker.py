"""One process of the service: a single server that takes requests in and gives turns, first come, first served.

Between two turns the event loop looks at its sockets and takes in whatever has arrived; then the oldest request has its
turn, and its answer is sent. So work on new requests goes before turns of old ones, but never into the middle of one.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from random import Random
from typing import Any

import simpy

from loadtest.capacity.costs import Costs, Rules
from loadtest.capacity.patience import Patience

Process = Generator[simpy.Event, Any, None]


@dataclass(slots=True)
class Visit:
    """One request. Seconds of the simulation."""

    due: float
    turn_s: float
    taken: float = 0.0
    end: float | None = None
    """When its answer was out; None: it was lost."""
    refused: bool = False
    degraded: bool = False
    over: simpy.Event | None = None
    """Whoever waits for its end."""


class Worker:
    """Takes requests from `offer` until the simulation ends or it is lost."""

    def __init__(self, env: simpy.Environment, costs: Costs, rules: Rules, random: Random) -> None:
        self._env, self._costs, self._rules, self._random = env, costs, rules, random
        self._patience = Patience(rules)
        self._arrived: deque[Visit] = deque()
        self._line: deque[Visit] = deque()
        self._wake: simpy.Event | None = None
        self._in_flight = 0
        self._lost = False
        self.outstanding = 0
        """Requests that were offered and are not over."""
        self.busy_s = 0.0
        self.slowed = 1.0
        """How many times as long everything takes."""
        env.process(self._loop())

    def offer(self, visit: Visit) -> None:
        """A request arrives."""
        self.outstanding += 1
        self._arrived.append(visit)
        self._rouse()

    def lose(self) -> None:
        """It is gone, with all requests that are not over."""
        self._lost = True

    def _rouse(self) -> None:
        if self._wake is not None:
            self._wake.succeed()
            self._wake = None

    def _loop(self) -> Process:
        while not self._lost:
            while self._arrived:
                yield self._take_in(self._arrived.popleft())
            if self._line:
                visit = self._line.popleft()
                yield self._work(self._turn(visit))
                self._end(visit)
                self._in_flight -= 1
            elif not self._arrived:
                self._wake = self._env.event()
                yield self._wake

    def _take_in(self, visit: Visit) -> simpy.Event:
        if self._in_flight >= self._rules.max_in_flight:
            visit.refused = True
            refusing = self._work(self._costs.refusal_s * self.slowed)
            refusing.callbacks.append(lambda _: self._end(visit))
            return refusing
        self._in_flight += 1
        visit.taken = self._env.now
        taking = self._work(self._costs.intake_s * self.slowed)
        taking.callbacks.append(lambda _: self._ask_redis(visit))
        return taking

    def _ask_redis(self, visit: Visit) -> None:
        if self._rules.redis_s <= 0 or self._random.random() < self._rules.cache_hits:
            self._line.append(visit)
            return

        def found(_: simpy.Event) -> None:
            self._line.append(visit)
            self._rouse()

        self._env.timeout(self._rules.redis_s).callbacks.append(found)

    def _turn(self, visit: Visit) -> float:
        turn_s = visit.turn_s * self.slowed
        fine_s = turn_s * self._costs.finerank_share
        waited_s = self._env.now - visit.taken
        took_s, visit.degraded = self._patience.turn(turn_s - fine_s, fine_s, waited_s, len(self._line))
        return took_s + self._costs.answer_s * self.slowed

    def _work(self, seconds: float) -> simpy.Event:
        self.busy_s += seconds
        return self._env.timeout(seconds)

    def _end(self, visit: Visit) -> None:
        if self._lost:
            return
        self.outstanding -= 1
        visit.end = self._env.now + self._costs.around_s
        if visit.over is not None:
            visit.over.succeed()
