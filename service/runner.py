"""Where the cascade of a request runs: in a turn of the event loop, or in a worker thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Runner(Protocol):
    """Runs synchronous work for coroutines."""

    lanes: int
    """So many pieces of work at the same time."""
    turns: int
    """Pieces of work that have begun; those of `spare` do not count."""

    @property
    def waiting(self) -> int:
        """Pieces of work that wait for their turn."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises."""

    async def spare(self, work: Callable[[], None]) -> bool:
        """Run `work` if a lane is free and nobody waits; otherwise False at once, and it was not run."""

    def close(self) -> None:
        """Wait for what is still running."""


class InTurns:
    """On the event loop itself: first come, first served, one piece of work in each of its turns.

    Between two pieces the loop sends the answer of the first, takes new requests in, or refuses them, and says that it
    lives. A worker thread would take the same core from the loop at times that neither chooses: with one core that
    costs 6 % of the throughput (docs/decisions/0015).
    """

    lanes = 1

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self.turns = 0

    @property
    def waiting(self) -> int:
        """See Runner."""
        return self._waiting

    async def run(self, work: Callable[[], T]) -> T:
        """See Runner."""
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:  # a request that is cancelled while it waits does not wait any more
            self._waiting -= 1
        self.turns += 1
        try:
            return work()
        finally:
            self._end_turn()

    async def spare(self, work: Callable[[], None]) -> bool:
        """See Runner."""
        if self._turn.locked() or self._waiting:
            return False
        await self._turn.acquire()  # at once: it is free, and nobody waits for it
        try:
            work()
        finally:
            self._end_turn()
        return True

    def _end_turn(self) -> None:
        """Not now, but two rounds of the loop later: in the first it looks at its sockets, in the second whoever waits
        for what has come in goes on."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._turn.release)

    def close(self) -> None:
        """See Runner."""


class InThreads:
    """In one of `threads` worker threads: for machines where one process has several cores, or a GPU, to itself."""

    def __init__(self, threads: int) -> None:
        self.lanes = threads
        self._executor = ThreadPoolExecutor(threads, "cascade")
        self._waiting: set[object] = set()
        self._running: set[object] = set()
        self.turns = 0

    @property
    def waiting(self) -> int:
        """See Runner."""
        return len(self._waiting)

    async def run(self, work: Callable[[], T]) -> T:
        """See Runner."""
        place = object()
        self._waiting.add(place)

        def begun() -> T:
            self._waiting.discard(place)
            self.turns += 1  # two threads at once may count one: a step of the ladder is then held one turn longer
            return self._run(work)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, begun)
        finally:
            self._waiting.discard(place)

    async def spare(self, work: Callable[[], None]) -> bool:
        """See Runner."""
        if self._waiting or len(self._running) >= self.lanes:
            return False
        await asyncio.get_running_loop().run_in_executor(self._executor, self._run, work)
        return True

    def _run(self, work: Callable[[], T]) -> T:
        place = object()
        self._running.add(place)
        try:
            return work()
        finally:
            self._running.discard(place)

    def close(self) -> None:
        """See Runner."""
        self._executor.shutdown()
