"""The gate's process stays behind requests, and comes forward when it had to wait too long."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.gate_helper import FORWARD, LAST, come_forward, command, may_come_back
from tests.patience import until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="classes and priorities of processes are Linux's")


@contextmanager
def helper(*, patient: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """One that waits for its job."""
    process = subprocess.Popen(
        command(patient=patient), stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def priority(process: "subprocess.Popen[bytes]") -> int:
    return os.getpriority(os.PRIO_PROCESS, process.pid)


@pytest.mark.skipif(not may_come_back(), reason="needs root or RLIMIT_NICE: nobody else leaves the idle class again")
def test_it_takes_what_nothing_else_wants_until_it_comes_forward() -> None:
    with helper(patient=True) as process:
        until(lambda: os.sched_getscheduler(process.pid) == os.SCHED_IDLE)
        assert priority(process) == LAST
        come_forward(process)
        assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        assert priority(process) == FORWARD


def test_without_patience_it_never_steps_back_so_far() -> None:
    with helper(patient=False) as process:
        until(lambda: b"service.gate_process" in Path(f"/proc/{process.pid}/cmdline").read_bytes())
        until(lambda: priority(process) == FORWARD)
        assert "idle" not in command(patient=False)


def test_one_that_has_ended_is_left_alone() -> None:
    with helper(patient=False) as process:
        process.kill()
        code = process.wait()
        come_forward(process)
        assert process.returncode == code == -signal.SIGKILL
