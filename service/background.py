"""One thread of lower priority: bundles are loaded in it and let go of, so that requests do not wait for that.

On Linux a thread has a priority of its own. The interpreter's lock has none: whoever holds it is asked for it after the
switch interval, 5 ms unless told otherwise, which is longer than a request takes. While the thread has something to do
it is shorter. Some steps keep the lock whatever the interval is: ONNX Runtime makes a session with it, 6 to 15 ms for
our graphs. So whoever works here gives way before each step, until no request is in flight.
"""

import asyncio
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from service.traffic import Traffic

T = TypeVar("T")
BEHIND = 5
"""Of -20 to 19: of a core that requests use too, it gets a quarter. Not the lowest, because a thread that is taken off
its core keeps the interpreter's lock until it gets it back: on a machine that other processes kept busy (load 8) the
event loop stalled for 17 to 206 ms beside a thread of priority 19, for 20 to 22 ms beside one of 5."""
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""Of glibc; others keep less."""
SWITCH_S = 0.00005
"""How long a request that needs the interpreter's lock waits at most while this thread computes in Python."""
PATIENCE_S = 0.05
"""A step gives way for so long at most: with 60 % of a core in use nothing is in flight 40 % of the time, and a process
that is never idle must take up its bundle, too."""
LOOK_S = 0.001
"""Between two looks whether requests are in flight."""


class Background:
    """Runs one piece of work after the other. For one event loop."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._executor = ThreadPoolExecutor(1, "background", _step_back)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. One that is cancelled runs to its end all the same."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, _considerate(work))

    def give_way(self) -> None:
        """To be called in the thread before each step of what it does: waits until no request is in flight, at most for
        PATIENCE_S."""
        end = time.monotonic() + PATIENCE_S
        while self._traffic.in_flight and time.monotonic() < end:
            time.sleep(LOOK_S)

    def let_go(self, held: list[object]) -> None:
        """Empty the list later: what nobody else refers to is freed in this thread, and its memory given back."""
        self._executor.submit(self._free, held)

    def close(self) -> None:
        """Wait for what is running; what has not begun never will."""
        self._executor.shutdown(cancel_futures=True)

    def _free(self, held: list[object]) -> None:
        """The C library keeps freed blocks below 32 MB, and hands them out in smaller pieces: the memory of a process
        that exchanges its bundles again and again grows by a third (60 exchanges of 20,000 ads, with nothing left in
        use)."""
        self.give_way()
        held.clear()
        if TRIM is not None:
            self.give_way()
            TRIM(0)


def _step_back() -> None:
    with suppress(AttributeError, PermissionError):  # other systems have no priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND)


def _considerate(work: Callable[[], T]) -> Callable[[], T]:
    def run() -> T:
        before = sys.getswitchinterval()
        sys.setswitchinterval(min(before, SWITCH_S))
        try:
            return work()
        finally:
            sys.setswitchinterval(before)

    return run
