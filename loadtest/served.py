"""A service of the load test's own: `adrank serve` as a process, found by what it prints."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ADDRESS = re.compile(r"serving (http://[^\s,]+)")
CURL = re.compile(r"^curl .*$", re.MULTILINE)
PROGRAM = ("-m", "adrank", "serve")
QUIET = ("--log-level", "warning")
"""Every degraded answer would be a line otherwise."""
STOP_S = 20
ROOT = Path(__file__).parents[1]


class StartError(OSError):
    """The service did not start."""


@dataclass(frozen=True, slots=True)
class Served:
    """A service that answers."""

    url: str
    pid: int
    example: dict[str, Any]
    """The body of the request that it says works."""


@contextmanager
def serve(
    bundle: Path, options: list[str], cores: list[int] | None = None, program: tuple[str, ...] = PROGRAM
) -> Iterator[Served]:
    """Serve `bundle` on a free port until the context ends. `program`: what takes the options of adrank serve.
    StartError with what it said, when it does not start."""
    asked = ["--bundle", str(bundle.resolve()), "--port", "0", *QUIET, *options]
    command = [sys.executable, *program, *asked]
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ADRANK_")}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=ours, start_new_session=True)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    if process.stdout is None:
        raise StartError("the service has no pipe")
    output, drain = process.stdout, threading.Thread(target=process.stdout.read, daemon=True)
    try:
        announced = _announced(process, output)
        drain.start()  # so that it never waits for a reader
        yield announced
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if drain.ident is not None:
            drain.join()
        output.close()


def _announced(process: "subprocess.Popen[str]", output: IO[str]) -> Served:
    printed = ""
    while not (curl := CURL.search(printed)):
        line = output.readline()
        if not line:
            raise StartError(f"the service did not start: exit code {process.wait()}; it said: {printed.strip()!r}")
        printed += line
    address = ADDRESS.search(printed)
    if address is None:
        raise StartError(f"the service named no address: {printed.strip()!r}")
    words = shlex.split(curl[0])
    return Served(address[1], process.pid, json.loads(words[words.index("-d") + 1]))
