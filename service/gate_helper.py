"""Starts the gate's helper process, follows what it says, and ends it when it takes too long."""

import asyncio
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from control.reports import BundleReport, Check
from service.gate import Job
from service.gate_process import Line
from service.metrics import SHARED_DIR
from service.settings import PREFIX, Settings, to_environment
from service.verdicts import Verdict

LONGEST_LINE = 1 << 20
SECRET = ("_KEY", "_REDIS_URL")
"""How the names of settings end that the helper has no use for: it opens what others made."""
WITHHELD = "withheld-from-the-gate"
TOLD = 300
"""Characters of the helper's standard error that a report quotes."""


async def ask_helper(job: Job, settings: Settings) -> Verdict:
    """The verdict on a bundle. A helper that crashes, is killed or takes too long is a refusal that says so."""
    checks: list[Check] = []
    begun = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "service.gate_process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=LONGEST_LINE,
            env=_environment(settings),
        )
        try:
            async with asyncio.timeout(settings.gate_timeout_seconds):
                mark = await _follow(process, job, checks)
                code = await process.wait()
        except TimeoutError:
            mark, code = "", 0
            checks.append(
                Check(
                    name="time",
                    passed=False,
                    found=time.monotonic() - begun,
                    limit=settings.gate_timeout_seconds,
                    note=f"seconds; the last check that was made is {checks[-1].name if checks else 'none'}",
                )
            )
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if mark is None:
            checks.append(Check(name="helper", passed=False, found=float(code), limit=0.0, note=_ended(code, errors)))
    return Verdict(report=report_of(job.bundle_id, checks), fingerprint=mark or "")


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


async def _follow(process: asyncio.subprocess.Process, job: Job, checks: list[Check]) -> str | None:
    """Collect the checks. The fingerprint that ends them; None when the helper ended before.

    Standard input stays open: the helper ends when it is closed, so also when this process dies.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job.model_dump_json().encode() + b"\n")
    async for text in process.stdout:
        line = Line.model_validate_json(text)
        if line.check is not None:
            checks.append(line.check)
        if line.fingerprint is not None:
            return line.fingerprint
    return None


def _environment(settings: Settings) -> dict[str, str]:
    """The service's own, with its settings, and where its modules are."""
    kept = {name: value for name, value in os.environ.items() if name != SHARED_DIR and not name.startswith(PREFIX)}
    ours = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([ours, *filter(None, [kept.get("PYTHONPATH")])])
    told = to_environment(settings)
    told |= {name: WITHHELD for name in told if name.endswith(SECRET)}
    return kept | told | {"PYTHONPATH": path}


def _ended(code: int, errors: IO[bytes]) -> str:
    """How the helper ended, with the last thing that it said."""
    errors.seek(0)
    said = " ".join(errors.read().decode(errors="replace").split())[-TOLD:]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = ", which may mean that memory was short" if code == -signal.SIGKILL else ""
    return f"the gate's process was {how}{hint}{f'; {said}' if said else ''}"
