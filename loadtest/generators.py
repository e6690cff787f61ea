"""Generator processes: started once, told one plan after the other, and read while they run."""

import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from loadtest.outcome import Outcome, merge
from loadtest.plan import Part, Plan, Tick

AHEAD_S = 0.5
"""From handing out plans to the first arrival: reading the requests takes most of it."""
READY_S = 120.0
SPARE_S = 60.0
"""Beyond the end of the curve and the time-out of a request."""
PIECE = 1 << 16
ROOT = Path(__file__).parents[1]


class GeneratorError(OSError):
    """A generator process ended or fell silent."""


class Process:
    """One generator process and the lines it says."""

    def __init__(self, cores: list[int] | None) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "loadtest.open_loop"]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
        )
        if cores:
            os.sched_setaffinity(self.popen.pid, cores)
        self._unread = b""

    @property
    def output(self) -> IO[bytes]:
        """What it writes."""
        return _pipe(self.popen.stdout)

    def tell(self, line: str) -> None:
        """Send a line. GeneratorError when it has ended."""
        try:
            _pipe(self.popen.stdin).write(line.encode() + b"\n")
        except BrokenPipeError as error:
            raise GeneratorError(f"a generator process ended with exit code {self.popen.wait()}") from error

    def lines(self) -> list[tuple[str, str]]:
        """What has arrived, once something has: the first word and the rest of each whole line."""
        piece = self.output.read(PIECE)
        if not piece:
            raise GeneratorError(f"a generator process ended with exit code {self.popen.wait()}")
        *whole, self._unread = (self._unread + piece).split(b"\n")
        split = [line.decode().partition(" ") for line in whole]
        return [(kind, text) for kind, _, text in split]

    def close(self) -> None:
        """End it."""
        self.popen.kill()
        self.popen.wait()
        _pipe(self.popen.stdin).close()
        self.output.close()


class Generators:
    """Several of them, as a context."""

    def __init__(self, processes: int = 1, cores: list[int] | None = None) -> None:
        """`cores`: where they may run; None: anywhere. GeneratorError when one does not start."""
        self._processes = [Process(cores) for _ in range(processes)]
        try:
            end = time.perf_counter() + READY_S
            deque(self._said(end, "one was not ready in time", lambda kind: kind == "ready"), maxlen=0)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the processes."""
        return [each.popen.pid for each in self._processes]

    def close(self) -> None:
        """End them."""
        for each in self._processes:
            each.close()

    def run(self, plan: Plan, on_tick: Callable[[Tick], None] | None = None) -> Outcome:
        """Carry out `plan`, split among all. `plan.begin` is set here. GeneratorError when one of them fails.

        Ticks are those of the first process times the number of processes: a display, not a measurement.
        """
        n = len(self._processes)
        begin = time.perf_counter() + AHEAD_S
        for i, each in enumerate(self._processes):
            part = plan.model_copy(update={"begin": begin, "processes": n, "process": i})
            each.tell(part.model_dump_json())
        end = begin + plan.curve[-1][0] * 1.5 + plan.timeout_s + SPARE_S
        parts: dict[int, Part] = {}
        for i, kind, text in self._said(end, "one did not end in time", lambda kind: kind == "part"):
            if kind == "part":
                parts[i] = Part.model_validate_json(text)
            elif i == 0 and on_tick is not None:
                on_tick(_times(Tick.model_validate_json(text), n))
        return merge([parts[i] for i in range(n)])

    def _said(self, end: float, late: str, last: Callable[[str], bool]) -> Iterator[tuple[int, str, str]]:
        """Process, first word and rest of each line, until each process has said its last one."""
        with selectors.DefaultSelector() as selector:
            for i, each in enumerate(self._processes):
                selector.register(each.output, selectors.EVENT_READ, i)
            while selector.get_map():
                if time.perf_counter() > end:
                    raise GeneratorError(f"of {len(self._processes)} generator processes {late}")
                for key, _ in selector.select(1.0):
                    for kind, text in self._processes[key.data].lines():
                        yield key.data, kind, text
                        if last(kind):
                            selector.unregister(key.fileobj)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise GeneratorError("a generator process has no pipe")
    return pipe


def _times(tick: Tick, n: int) -> Tick:
    many = {name: getattr(tick, name) * n for name in ("sent", "answered", "failed", "degraded", "in_flight")}
    return tick.model_copy(update=many)
