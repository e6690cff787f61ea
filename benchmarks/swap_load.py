"""Open-loop load for the benchmark of swaps: keeps every answer, and says how late it was itself.

Unlike benchmarks/http/load.py it sleeps while nothing is due, so that its core has room for a process that takes only
what others leave.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from benchmarks.http.load import STALLED_S, Connections, LoadError

CONNECTIONS = 64
EVERY_STATUS = (*range(200, 600),)
AWAKE_S = 0.002
"""Before an arrival is due it looks without sleeping: the system's timers for sockets have a resolution of 1 ms."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    request: int
    started: float
    """Intended, in seconds of the monotonic clock."""
    ms: float
    status: int
    body: bytes


def offered(
    address: tuple[str, int], requests: Sequence[bytes], starts: list[float]
) -> tuple[list[Answer], list[float]]:
    """Requests that start at these times, and by how many milliseconds each was sent late. LoadError when one is not
    answered at all."""
    pool = Connections(address, CONNECTIONS, EVERY_STATUS)
    waiting: deque[tuple[int, float]] = deque()
    under_way: dict[int, int] = {}
    answers: list[Answer] = []
    late: list[float] = []
    try:
        upcoming, n = 0, len(starts)
        while len(answers) < n:
            now = perf_counter()
            rest = starts[upcoming] - now - AWAKE_S if upcoming < n else AWAKE_S
            for each in pool.completed(max(0.0, rest)):
                request = under_way.pop(id(each))
                answers.append(
                    Answer(request, each.started, (perf_counter() - each.started) * 1e3, each.status, each.body)
                )
            now = perf_counter()
            while upcoming < n and starts[upcoming] <= now:
                waiting.append((upcoming % len(requests), starts[upcoming]))
                upcoming += 1
            while waiting and pool.idle:
                pool.idle.rotate(1)  # the one used last: the server closes those that were idle for 5 s
                request, started = waiting.popleft()
                under_way[id(pool.idle[0])] = request
                pool.send(requests[request], started)
                late.append((perf_counter() - started) * 1e3)
            if upcoming and now > starts[upcoming - 1] + STALLED_S:
                raise LoadError(f"no answer for {STALLED_S:g} s")
    finally:
        pool.close()
    return answers, late
