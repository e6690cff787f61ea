"""Load over HTTP/1.1 on kept-alive connections: closed loop, or open loop with latency counted from the intended start.

No event loop: timers of asyncio and uvloop have a resolution of 1 ms, a request of the light network takes 1.3. The
generator polls its sockets without sleeping, so it needs a core of its own.
"""

import select
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import httptools
import numpy as np
import numpy.typing as npt

from benchmarks.timing import Times

CONNECTIONS = 16
"""Of the open loop, used in turn. An arrival that finds all of them busy waits here, and its wait counts."""
FEWEST = 10
"""Requests that a closed loop counts at least, however long they take."""
PIECE = 262_144
STALLED_S = 30.0
"""A server that answers nothing for so long is given up."""


class LoadError(OSError):
    """A server did not answer as it must."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of load saw."""

    latencies: Times
    """Milliseconds, one a request, in order of completion."""
    seconds: float
    """From the first counted start to the last completion."""
    answered: int
    """Requests in all, those of the warm-up included."""

    @property
    def throughput(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds


class Connection:
    """One kept-alive connection with at most one request under way."""

    def __init__(self, address: tuple[str, int], accepted: Sequence[int] = (200,)) -> None:
        self.accepted, self.status = accepted, 0
        self.socket = socket.create_connection(address, timeout=STALLED_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started = 0.0
        self.complete = True
        self._body: list[bytes] = []
        self._parser = httptools.HttpResponseParser(self)

    def on_body(self, piece: bytes) -> None:
        """A piece of the answer's body (called by the parser)."""
        self._body.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole (called by the parser)."""
        self.complete = True

    def send(self, request: bytes, started: float) -> None:
        """Send a whole request whose latency counts from `started`."""
        self.started, self.complete = started, False
        self._body.clear()
        self.socket.sendall(request)

    def read(self) -> bool | None:
        """Take what has arrived; whether the answer is whole, None when the server closed an idle connection.

        LoadError unless the answer's status is one of those accepted.
        """
        piece = self.socket.recv(PIECE, socket.MSG_DONTWAIT)
        if not piece:
            if self.complete:
                return None
            raise LoadError("the server closed the connection with a request under way")
        self._parser.feed_data(piece)
        if self.complete and (status := self._parser.get_status_code()) not in self.accepted:
            raise LoadError(f"status {status}: {self.body[:300].decode(errors='replace')}")
        self.status = self._parser.get_status_code()
        return self.complete

    @property
    def body(self) -> bytes:
        """The last answer's body."""
        return b"".join(self._body)


class Connections:
    """Connections to one server, and the poll that says which of them have something."""

    def __init__(self, address: tuple[str, int], n: int, accepted: Sequence[int] = (200,)) -> None:
        self._address, self._accepted = address, accepted
        self._poll = select.epoll()
        self._by_number: dict[int, Connection] = {}
        self.idle = deque(self._open() for _ in range(n))

    def send(self, request: bytes, started: float) -> None:
        """Send on the connection that has been idle for the longest. IndexError when there is none."""
        self.idle.popleft().send(request, started)

    def completed(self, wait_s: float = 0.0) -> list[Connection]:
        """Those whose answer has just become whole, idle now. Waits at most `wait_s` for something to come, in whole
        milliseconds, rounded up."""
        found = []
        for number, _ in self._poll.poll(wait_s):
            each = self._by_number[number]
            if (whole := each.read()) is None:
                self._replace(each)
            elif whole:
                self.idle.append(each)
                found.append(each)
        return found

    def close(self) -> None:
        """Close all."""
        self._poll.close()
        for each in self._by_number.values():
            each.socket.close()

    def _open(self) -> Connection:
        opened = Connection(self._address, self._accepted)
        self._by_number[opened.socket.fileno()] = opened
        self._poll.register(opened.socket, select.EPOLLIN)
        return opened

    def _replace(self, each: Connection) -> None:
        """Servers close connections that were idle for some seconds, uvicorn after 5."""
        self.idle.remove(each)
        del self._by_number[each.socket.fileno()]
        each.socket.close()
        self.idle.append(self._open())


def http_request(path: str, body: bytes) -> bytes:
    """The bytes of a POST of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """One request on a connection of its own; the answer's body. LoadError unless it is a success."""
    connections = Connections(address, 1)
    try:
        connections.send(request, perf_counter())
        end = perf_counter() + STALLED_S
        while not (found := connections.completed()):
            _not_stalled(end)
        return found[0].body
    finally:
        connections.close()


def closed_loop(
    address: tuple[str, int], requests: Sequence[bytes], connections: int, seconds: float, warm_up: float = 0.3
) -> Measured:
    """Each connection sends its next request as soon as it has its answer, for `seconds` and FEWEST requests at least.

    What starts in `warm_up` is not counted.
    """
    pool = Connections(address, connections)
    latencies: list[float] = []
    turn = 0
    try:
        begin = perf_counter()
        counted, end = begin + warm_up, begin + warm_up + seconds
        last = begin
        while last < end or len(latencies) < FEWEST or len(pool.idle) < connections:
            while pool.idle and (last < end or len(latencies) < FEWEST):
                pool.send(requests[turn % len(requests)], perf_counter())
                turn += 1
            for each in pool.completed():
                last = perf_counter()
                if each.started >= counted:
                    latencies.append(last - each.started)
            _not_stalled(last + STALLED_S)
    finally:
        pool.close()
    return Measured(np.array(latencies) * 1e3, last - counted, turn)


def open_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    rate: float,
    arrivals: npt.NDArray[np.float64],
    connections: int = CONNECTIONS,
) -> Measured:
    """Requests start at `arrivals` (in units of 1 / rate seconds), whether or not earlier ones have been answered.

    Latency counts from that intended start, so time spent waiting for a free connection is part of it.
    """
    pool = Connections(address, connections)
    waiting: deque[float] = deque()
    latencies: list[float] = []
    turn = 0
    try:
        begin = perf_counter() + 0.01
        starts = (begin + arrivals / rate).tolist()
        upcoming, n, now = 0, len(starts), begin
        while len(latencies) < n:
            latencies.extend(perf_counter() - each.started for each in pool.completed())
            now = perf_counter()
            while upcoming < n and starts[upcoming] <= now:
                waiting.append(starts[upcoming])
                upcoming += 1
            while waiting and pool.idle:
                pool.send(requests[turn % len(requests)], waiting.popleft())
                turn += 1
            if waiting:
                _not_stalled(waiting[0] + STALLED_S)
    finally:
        pool.close()
    return Measured(np.array(latencies) * 1e3, now - begin, n)


def poisson(n: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """n arrivals of a Poisson process of rate 1, stretched to end at exactly n: every server gets the same ones."""
    arrivals = np.cumsum(np.random.default_rng(seed).exponential(size=n))
    return np.asarray(arrivals * (n / arrivals[-1]))


def _not_stalled(end: float) -> None:
    if perf_counter() > end:
        raise LoadError(f"no answer for {STALLED_S:g} s")
