"""Servers take turns, round by round; only one runs at a time, the others are stopped meanwhile."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from benchmarks.http.load import LoadError, Measured, closed_loop, open_loop, poisson
from benchmarks.http.process import ServerProcess
from benchmarks.http.servers import OURS
from benchmarks.timing import p50, p99

SHARES = (20, 40, 60, 80)
"""Arrival rates of the open loop, per cent of the server's own throughput in the same round."""
HIGHEST = SHARES[-1]
BUSY = 4
"""Connections of the closed loop that saturate one core."""

AWAKE_S = 0.3
"""After a pause, for a server's own timers that ran out meanwhile."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each cell takes."""

    rounds: int
    closed_s: float
    arrivals: Mapping[int, int]
    """Share -> requests in one pattern of arrivals. Every server gets the same pattern, stretched to its own rate."""
    open_s: float
    """Fast servers get the pattern again until so much time has passed."""


FULL = Plan(rounds=4, closed_s=2.0, arrivals={20: 30, 40: 30, 60: 40, 80: 200}, open_s=2.0)
CLOSED = Plan(rounds=3, closed_s=1.0, arrivals={}, open_s=0.0)
QUICK = Plan(rounds=2, closed_s=0.7, arrivals={80: 60}, open_s=1.0)


@dataclass(frozen=True, slots=True)
class Running:
    """A server and its requests."""

    process: ServerProcess
    requests: Sequence[bytes]


@dataclass(slots=True)
class Cell:
    """One figure of each round."""

    rates: list[float] = field(default_factory=list)
    """Requests a second: answered in the closed loop, sent in the open one."""
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    """Milliseconds."""
    cpu_ms: list[float] = field(default_factory=list)
    """Processor time of one request, all of the server's processes together; closed loop only."""

    def add(self, measured: Measured, rate: float) -> None:
        """One more round."""
        self.rates.append(rate)
        self.p50.append(p50(measured.latencies))
        self.p99.append(p99(measured.latencies))


@dataclass(slots=True)
class Seen:
    """All that was measured of one server."""

    closed: dict[int, Cell] = field(default_factory=dict)
    """By connections."""
    open: dict[int, Cell] = field(default_factory=dict)
    """By share of saturation, per cent."""


def run_rounds(servers: Mapping[str, Running], plan: Plan, failed: dict[str, str]) -> dict[str, Seen]:
    """Every server in every round, forwards and backwards in turn. All must be paused, and are so afterwards.

    One that stops answering goes into `failed` and is left out of the result; LoadError when it is ours.
    """
    seen = {name: Seen() for name in servers}
    for i in range(plan.rounds):
        names = list(seen)
        for name in names if i % 2 == 0 else reversed(names):
            try:
                with awake(servers[name].process):
                    _one_round(servers[name], seen[name], plan, i)
            except OSError as error:
                if name == OURS:
                    raise LoadError(f"{name}: {error}") from error
                failed[name] = f"round {i + 1}: {error}"
                del seen[name]
    return seen


@contextmanager
def awake(server: ServerProcess) -> Iterator[None]:
    """The server runs meanwhile, and only then."""
    server.resume()
    try:
        time.sleep(AWAKE_S)
        yield
    finally:
        server.pause()


def _one_round(server: Running, seen: Seen, plan: Plan, i: int) -> None:
    address, requests = server.process.address, server.requests
    for connections in (1, BUSY):
        before = server.process.cpu_s()
        measured = closed_loop(address, requests, connections, plan.closed_s)
        cell = seen.closed.setdefault(connections, Cell())
        cell.add(measured, measured.throughput)
        cell.cpu_ms.append((server.process.cpu_s() - before) / measured.answered * 1e3)
    saturation = seen.closed[BUSY].rates[-1]
    for share, n in plan.arrivals.items():
        rate = saturation * share / 100
        pattern = poisson(n, seed=i)
        repeats = max(1, round(plan.open_s * rate / n))
        arrivals = np.concatenate([pattern + n * turn for turn in range(repeats)])
        seen.open.setdefault(share, Cell()).add(open_loop(address, requests, rate, arrivals), rate)


def middle(values: Sequence[float]) -> float:
    """The median over rounds."""
    return float(np.median(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours ÷ theirs, each within one round."""
    return float(np.median(np.array(ours) / np.array(theirs)))
