"""What a running service answers and what comes of it, collected until there is enough to go on from.

The collector is `adrank outcomes` as a process of its own. It is told to stop when the traffic is over; then a last run
of it takes what is still in Redis, and writes the training log as it stands.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from control.command_line import key_of
from models.marketplace.simulate import KEY_VARIABLE, Asked, Simulation, SimulationError, figures
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.visitors import Visitors

ADRANK = Path(__file__).parents[1] / "adrank.py"
"""The one command; in an installation it lies beside the packages too."""
SETTLE_S = 1.0
"""After the last answer: the service logs answers in the background, up to 64 at once."""
STOP_S = 60.0
"""For the collector to write what it has."""
LOOK_S = 1.0


class TrafficError(Exception):
    """There is no traffic to go on from: one line."""


@dataclass(frozen=True, slots=True)
class Collecting:
    """Where the collector takes from and writes to."""

    redis: str
    prefix: str
    dataset: Path
    out: Path
    log: Path


@dataclass(frozen=True, slots=True)
class Visiting:
    """Simulated users."""

    spec: MarketplaceSpec
    visits: int
    k: int
    seed: int
    before: Path | None
    """Histories that an earlier turn left; None: those at the end of the marketplace's log."""
    drift: float
    """How far tastes have turned since the marketplace's log."""
    after: Path
    """Where this turn leaves them."""


@contextmanager
def collecting(where: Collecting) -> Iterator["subprocess.Popen[bytes]"]:
    """Inside, a collector runs; afterwards everything that was logged is on disk. TrafficError when a collector
    fails."""
    with where.log.open("ab") as log:
        _end_orphan(where.out / "collector.lock")
        collector = _started(where, log.fileno())
        try:
            yield collector
            require_alive(collector, where)
            time.sleep(SETTLE_S)
        finally:
            collector.terminate()
            collector.wait(STOP_S)
        last = _started(where, log.fileno(), "--once")
        if last.wait():
            raise TrafficError(f"the collector failed: {_said(where)}")


def require_alive(collector: "subprocess.Popen[bytes]", where: Collecting) -> None:
    """TrafficError when the collector has ended."""
    if collector.poll() is not None:
        raise TrafficError(f"the collector ended with code {collector.returncode}: {_said(where)}")


def visit(url: str, visiting: Visiting, *, progress: bool) -> dict[str, float]:
    """Have the simulated users ask the service; what they got (models/marketplace/simulate.py)."""
    visitors = Visitors(visiting.spec, visiting.seed, visiting.drift)
    if visiting.before is not None:
        visitors.histories[...] = np.load(visiting.before)
    together = min(100, visiting.spec.users)
    key = key_of(None, KEY_VARIABLE)
    simulation = Simulation(visitors, Asked(url, visiting.k, together, concurrency=8, rate=None, key=key))
    try:
        with tqdm(total=visiting.visits, unit=" visits", desc="visits", disable=not progress) as bar:
            asyncio.run(simulation.run(visiting.visits, bar))
    except (SimulationError, ValueError) as error:
        raise TrafficError(str(error)) from error
    part = visiting.after.with_suffix(".part.npy")
    np.save(part, visitors.histories)
    part.replace(visiting.after)
    return figures(simulation.tallies)


def wait(minutes: float, collector: "subprocess.Popen[bytes]", where: Collecting, *, progress: bool) -> None:
    """Let others ask the service. TrafficError as soon as the collector ends."""
    end = time.monotonic() + minutes * 60
    with tqdm(total=round(minutes * 60), unit="s", desc="waiting for traffic", disable=not progress) as bar:
        while (left := end - time.monotonic()) > 0:
            require_alive(collector, where)
            time.sleep(min(LOOK_S, left))
            bar.update(round(minutes * 60 - max(0.0, end - time.monotonic())) - bar.n)


def _end_orphan(lock: Path) -> None:
    """Tell the collector of a loop that was killed to stop, and wait until it has. It holds the lock as long as it
    lives, and its id is in it."""
    if not lock.exists():
        return
    with lock.open() as file:
        end = time.monotonic() + STOP_S
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if not told:
                    os.kill(int(lock.read_text()), signal.SIGTERM)
                told = True
                if time.monotonic() > end:
                    raise TrafficError(f"{lock}: an earlier collector does not end within {STOP_S:g} s") from None
                time.sleep(0.1)
            else:
                return


def _started(where: Collecting, log: int, *more: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(ADRANK), "outcomes", "--prefix", where.prefix, "--out", str(where.out)]
    command += ["--dataset", str(where.dataset), *more]
    environment = os.environ | {"ADRANK_REDIS_URL": where.redis}  # not an argument: it may hold a password
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _said(where: Collecting) -> str:
    lines = where.log.read_text(errors="replace").splitlines()
    return lines[-1] if lines else "it said nothing"
