"""What is seen of processes: memory of their own and of files, children, and what the service says."""

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client import RungOut
from loadtest.footprint import Footprint, Rung, family, footprint, resident

MIB = 1 << 20
HOLDS = """
import mmap, subprocess, sys
own = bytearray(b"x" * (40 << 20))
file = open(sys.argv[1], "rb")
mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
total = sum(mapped[i] for i in range(0, len(mapped), mmap.PAGESIZE))
program = "own = bytearray(b'x' * (20 << 20)); print('ready', flush=True); input()"
child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=sys.stdout)
input()
child.communicate(b"\\n")
"""


@contextmanager
def holding(tmp_path: Path) -> Iterator[int]:
    """A process with 40 MiB of its own and a mapped file of 30, and a child with 20."""
    (tmp_path / "mapped").write_bytes(os.urandom(MIB) * 30)
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "mapped")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid
        process.communicate(b"\n")


def test_memory_of_a_process_and_its_children(tmp_path: Path) -> None:
    with holding(tmp_path) as pid:
        assert len(family(pid)) == 2
        own, mapped = resident(pid)
    assert own is not None
    assert mapped is not None
    assert 60 * MIB < own < 100 * MIB
    assert 30 * MIB < mapped < 60 * MIB
    assert mapped % mmap.PAGESIZE == 0


def test_own_memory_is_that_of_one_worker(tmp_path: Path) -> None:
    rungs = [
        RungOut(name="full", model="din", loaded=True, expected_ms=2.0, worth=None),
        RungOut(name="gone", model="din", loaded=False, expected_ms=None, worth=None),
    ]
    with holding(tmp_path) as pid:
        found = footprint(rungs, 2, pid)
    assert found.workers == 2
    assert found.own_bytes is not None
    assert 30 * MIB < found.own_bytes < 50 * MIB
    assert found.rungs == [Rung(name="full", expected_ms=2.0)]
    assert found.processor


def test_of_a_service_elsewhere_only_what_it_says_is_known() -> None:
    found = footprint([], 0, None)
    assert found == Footprint(workers=1, own_bytes=None, mapped_bytes=None, processor=None, rungs=[])


def test_a_process_that_is_gone_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        pid = process.pid
    assert resident(pid) == (None, None)
