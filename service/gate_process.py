"""The gate's helper: `python -m service.gate_process`, started by gate_helper.py, one bundle each.

It reads one line, a Job in JSON, and its settings from ADRANK_* variables. It writes one line of JSON for each check,
and a last one when it is done. It gives way to everything else on the machine until it is told to come forward, is the
first that the system ends when memory is short, and ends by itself when whoever started it does.
"""

# ruff: noqa: E402
import os
import sys

IDLE = "idle"
"""The argument with which it takes only time of a processor that nothing else wants."""
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before the libraries load that read them
    os.environ[_name] = "1"
if __name__ == "__main__" and IDLE in sys.argv:  # before they load, which takes a second of a core of requests
    # Of a core that is never idle this is 3 parts of 1,000, the lowest priority would be 15.
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

import contextlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from control.reports import Check
from control.state import Frozen
from service.gate import Job, checks, folder_of
from service.settings import Settings, read_settings
from service.verdicts import fingerprint

log = logging.getLogger("adrank.gate")
OOM_SCORE = 1000
"""The highest: of all processes this one is ended first."""
LONGEST_NOTE = 2000


class Line(Frozen):
    """What the helper writes: a check, or at the end what it judged."""

    check: Check | None = None
    fingerprint: str | None = None
    """Of the bundle's folder, taken before anything in it was read; empty where there is none."""


def main() -> int:
    """Judge one bundle. 0 whatever the verdict is."""
    with _answers() as answers:
        _be_the_first_to_end()
        job = Job.model_validate_json(sys.stdin.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        settings = read_settings().model_copy(update={"threads": 1})
        for line in judge(job, settings):
            answers.write(line.model_dump_json() + "\n")
            answers.flush()
    return 0


def judge(job: Job, settings: Settings) -> Iterator[Line]:
    """Every check up to the first that fails, then the fingerprint. An error that nobody expected is a failed check."""
    mark = ""
    try:
        for check in checks(job, settings):
            if check.name == "store" and check.passed:
                mark = fingerprint(folder_of(job, settings))
            yield Line(check=check.model_copy(update={"note": check.note[:LONGEST_NOTE]}))
            if not check.passed:
                break
    except Exception as error:
        log.exception("the gate failed")
        note = f"{type(error).__name__}: {error}"[:LONGEST_NOTE]
        yield Line(check=Check(name="gate", passed=False, found=1.0, limit=0.0, note=note))
    yield Line(fingerprint=mark)


@contextlib.contextmanager
def _answers() -> Iterator[TextIO]:
    """Standard output, for lines alone: what libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        yield answers


def _be_the_first_to_end() -> None:
    """When memory is short."""
    with contextlib.suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


def _end_with_parent() -> None:
    """Whoever started this holds the other end of standard input, and lets go of it when it ends, however it ends."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
