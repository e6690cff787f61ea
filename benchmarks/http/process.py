"""Server processes on one core. Between its turns a server is stopped, every process of it, not just idle."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.http.load import LoadError, ask

POLL_S = 0.1
GRACE_S = 5.0
"""For a server to end by itself; nothing it holds is worth more."""


class StartError(OSError):
    """A server did not come up; the message is the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core serves and which one asks."""

    server: int
    load: int


def two_cores() -> Cores:
    """The first two that this process may use. ValueError when there are fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise ValueError(f"bench http needs 2 cores, one for the server and one for the load; {len(allowed)} here")
    return Cores(*allowed[:2])


@contextlib.contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread runs on `core`, and so do processes that it starts."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def ended_cleanly() -> Iterator[None]:
    """SIGTERM unwinds like Ctrl-C: stopped servers must not be left behind."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class ServerProcess:
    """One server: a command and whatever it starts."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, address: tuple[str, int], core: int
    ) -> None:
        """Start `command` in `folder` on `core`; what it prints goes to `folder`/log.txt."""
        self.address = address
        self.log = folder / "log.txt"
        with on_core(core), self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env={**clean_environment(), **environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def root(self) -> "subprocess.Popen[bytes]":
        """The process that was started; it may have started others."""
        return self._process

    def wait_until_it_answers(self, request: bytes, within_s: float) -> bytes:
        """The answer's body. StartError when the process ends or does not answer a success in time."""
        end = time.monotonic() + within_s
        last = "nothing was asked"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise StartError(f"ended with code {self._process.returncode}: {self._said()}")
            try:
                return ask(self.address, request)
            except (OSError, LoadError) as error:
                last = str(error)
            time.sleep(POLL_S)
        raise StartError(f"no success within {within_s:g} s ({last}): {self._said()}")

    @property
    def main(self) -> int:
        """The process that was started."""
        return self._process.pid

    def pause(self) -> None:
        """Stop every process of it, and return once they are; those included that one has just started."""
        end = time.monotonic() + GRACE_S
        while running := [pid for pid in self.processes() if _stat(pid)[:1] != ["T"]]:
            if time.monotonic() > end:
                raise StartError(f"processes {running} of a server do not stop within {GRACE_S:g} s")
            self._signal(signal.SIGSTOP)
            time.sleep(0.001)

    def resume(self) -> None:
        """Let them run again."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, by force after GRACE_S."""
        self.resume()
        if self._process.poll() is None:
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        while self.processes():
            self._signal(signal.SIGKILL)
            time.sleep(POLL_S)
        self._process.wait()

    def processes(self) -> list[int]:
        """All that live of it: those of its session, whoever their parent is now, and what they started."""
        parents: dict[int, int] = {}
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            state, parent, _group, session = _stat(pid)[:4] or ("X", 0, 0, 0)
            if state not in "ZX":
                parents[pid] = int(parent)
                if int(session) == self._process.pid:
                    found.add(pid)
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def memory_mb(self) -> float:
        """Proportional set size of all its processes."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1024

    def cpu_s(self) -> float:
        """Processor time of all its processes so far. What others do on the core hardly changes it, unlike latency."""
        return sum(_ticks(pid) for pid in self.processes()) / os.sysconf("SC_CLK_TCK")

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _said(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])[-400:] or "it printed nothing"


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the name: state, parent, group, session, ... Empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _ticks(pid: int) -> int:
    """Of user and system time; 0 when the process has ended."""
    return sum(map(int, _stat(pid)[11:13]))


def clean_environment() -> dict[str, str]:
    """Ours, without what would change how a server runs; its libraries get one thread each."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADRANK_", "PYTHON", "RAY_"))}
    return kept | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def python_of(environment: Path | None) -> str:
    """The interpreter of an environment; without one, ours."""
    return sys.executable if environment is None else str(environment / "bin/python")
