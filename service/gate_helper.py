"""Starts the gate's helper process, follows what it says, and ends it when it takes too long."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from control.reports import BundleReport, Check
from service.gate import Job
from service.gate_process import IDLE, Line
from service.metrics import SHARED_DIR
from service.settings import PREFIX, Settings, to_environment
from service.verdicts import Verdict

LONGEST_LINE = 1 << 20
SECRET = ("_KEY", "_REDIS_URL")
"""How the names of settings end that the helper has no use for: it opens what others made."""
WITHHELD = "withheld-from-the-gate"
TOLD = 300
"""Characters of the helper's standard error that a report quotes."""
CAP_SYS_NICE = 23
"""Its number, of capabilities(7)."""
LAST, FORWARD = 19, 10
"""Priorities of the helper: at first, and once it had to wait too long. Of a core that is never idle they get a 70th
and a tenth."""


async def ask_helper(job: Job, settings: Settings) -> Verdict:
    """The verdict on a bundle. A helper that crashes, is killed or takes too long is a refusal that says so."""
    helper = Helper(job, settings)
    begun = time.monotonic()
    judging = asyncio.create_task(asyncio.to_thread(helper.judge))
    try:
        async with asyncio.timeout(settings.gate_timeout_seconds):
            return await asyncio.shield(judging)
    except TimeoutError:
        checks = [
            *helper.checks,
            Check(
                name="time",
                passed=False,
                found=time.monotonic() - begun,
                limit=settings.gate_timeout_seconds,
                note=f"seconds; the last check that was made is {helper.checks[-1].name if helper.checks else 'none'}",
            ),
        ]
        return Verdict(report=report_of(job.bundle_id, checks), fingerprint="")
    finally:
        helper.end()
        await asyncio.gather(judging, return_exceptions=True)


class Helper:
    """One helper process. It is started and followed in a thread: the event loop's own way to start one copies this
    process first, which keeps the loop from answering for 5 ms of a core, or 40 on a busy machine."""

    def __init__(self, job: Job, settings: Settings) -> None:
        self._job, self._settings = job, settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unwanted = False
        self._done: tuple[Check, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those that it has made so far."""
        return self._done

    def judge(self) -> Verdict:
        """In a thread: what it finds."""
        with tempfile.TemporaryFile() as errors:
            process = self._start(errors)
            with (
                _patient_for(self._settings.gate_idle_seconds, process),
                suppress(BrokenPipeError),  # of one that ended before it was told what to do
                process,
            ):
                mark = self._follow(process)
                code = process.wait()
            checks = [*self._done]
            if mark is None:
                note = _ended(code, errors)
                checks.append(Check(name="helper", passed=False, found=float(code), limit=0.0, note=note))
        return Verdict(report=report_of(self._job.bundle_id, checks), fingerprint=mark or "")

    def end(self) -> None:
        """From another thread: whatever it is doing, it ends, and so does `judge`."""
        with self._lock:
            self._unwanted = True
            if self._process is not None:
                self._process.kill()  # nothing happens to one that has ended

    def _start(self, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._unwanted:
                raise RuntimeError("the gate's process was ended before it was started")
            self._process = subprocess.Popen(
                command(patient=self._settings.gate_idle_seconds > 0),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(self._settings),
            )
        return self._process

    def _follow(self, process: "subprocess.Popen[bytes]") -> str | None:
        """Collect the checks. The fingerprint that ends them; None when the helper ended before.

        Standard input stays open: the helper ends when it is closed, so also when this process dies.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(self._job.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        while text := process.stdout.readline(LONGEST_LINE):
            line = Line.model_validate_json(text)
            if line.check is not None:
                self._done = (*self._done, line.check)
            if line.fingerprint is not None:
                return line.fingerprint
        return None


def report_of(bundle_id: str, checks: list[Check]) -> BundleReport:
    """Ready when all checks passed, otherwise refused by the last one."""
    if checks and all(check.passed for check in checks):
        return BundleReport(bundle_id=bundle_id, status="ready", checks=tuple(checks))
    return BundleReport(bundle_id=bundle_id, status="refused", checks=tuple(checks), error=told(checks[-1]))


def told(check: Check) -> str:
    """A failed check in one line."""
    found, limit = (f"{each:.4g}" if isinstance(each, float) else each for each in (check.found, check.limit))
    note = f": {check.note}" if check.note else ""
    return " ".join(f"{check.name}: found {found}, limit {limit}{note}".split())


@contextmanager
def _patient_for(seconds: float, process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """After so long the helper comes forward, if it is not done by then."""
    timer = threading.Timer(seconds, come_forward, [process])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def come_forward(process: "subprocess.Popen[bytes]") -> None:
    """Whatever has kept every core busy until now, from here on the helper gets a share. Where the system does not
    allow that, the helper stays as far behind as it is."""
    with suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            if sys.platform == "linux":
                os.sched_setscheduler(process.pid, os.SCHED_OTHER, os.sched_param(0))
            os.setpriority(os.PRIO_PROCESS, process.pid, FORWARD)


def command(*, patient: bool) -> list[str]:
    """What starts the helper. Its priority is given from outside: an interpreter takes 10 ms of a core until it can
    step back by itself."""
    nice = shutil.which("nice")
    stepped_back = [] if nice is None else [nice, "-n", str(LAST if patient else FORWARD)]
    idle = [IDLE] if patient and may_come_back() else []
    return [*stepped_back, sys.executable, "-P", "-m", "service.gate_process", *idle]


def may_come_back() -> bool:
    """Whether the system would let a process out of the idle class again: sched(7)."""
    if sys.platform != "linux":
        return False
    allowed, _ = resource.getrlimit(resource.RLIMIT_NICE)
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    return allowed == resource.RLIM_INFINITY or allowed >= 20 - LAST or bool(capabilities >> CAP_SYS_NICE & 1)


def _environment(settings: Settings) -> dict[str, str]:
    """The service's own, with its settings, and where its modules are."""
    kept = {name: value for name, value in os.environ.items() if name != SHARED_DIR and not name.startswith(PREFIX)}
    ours = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([ours, *filter(None, [kept.get("PYTHONPATH")])])
    told = to_environment(settings)
    told |= {name: f"{WITHHELD}-{name}" for name in told if name.endswith(SECRET)}
    return kept | told | {"PYTHONPATH": path}


def _ended(code: int, errors: IO[bytes]) -> str:
    """How the helper ended, with the last thing that it said."""
    errors.seek(0)
    said = " ".join(errors.read().decode(errors="replace").split())[-TOLD:]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = ", which may mean that memory was short" if code == -signal.SIGKILL else ""
    return f"the gate's process was {how}{hint}{f'; {said}' if said else ''}"
