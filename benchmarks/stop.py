"""`adrank bench stop`: the service is told to end while clients ask, and what becomes of their requests.

Clients keep their connections and ask at random times, whether or not earlier requests were answered; they are httpx's,
which sends nothing twice. They go on until the process has ended. Each request becomes one of these:

    answered    a complete answer came, whatever its status
    refused     no connection could be made: the service took nothing, and the client knows
    lost        everything else: the connection was there, and no complete answer came
"""

import argparse
import asyncio
import itertools
import json
import math
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.features import redis_server
from benchmarks.http.load import http_request
from benchmarks.http.process import ended_cleanly, two_cores
from benchmarks.http.servers import start_ours
from benchmarks.report import Report, Table

ADS = 2_000
ROUNDS = (20, 3)
"""Of each kind, and in the small version."""
RATE = 150.0
"""Requests a second; httpx takes 1 ms of a processor for each."""
CLIENTS = 4
"""Each with its own pool of connections."""
USERS = 64
BEFORE_S = 1.5
"""Of load, until the signal."""
OPTIONS = ("--drain-seconds", "0.5", "--log-level", "warning")
POLL_S = 0.01
LONGEST_S = 30.0
"""For all of a stop."""


@dataclass(slots=True)
class Round:
    """What became of the requests of one stop."""

    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    lost: list[str] = field(default_factory=list)
    """What the client said of each."""
    after: int = 0
    """Answers to requests that were sent after the signal."""
    unready_ms: float = float("nan")
    """From the signal to the first 503 of /readyz."""
    seconds: float = float("nan")
    """From the signal to the end of the process."""
    exit_code: int | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--rounds N`."""
    parser.add_argument("--rounds", type=int, metavar="N", help=f"stops of each kind (default {ROUNDS[0]})")


def run(arguments: argparse.Namespace) -> Report:
    """`stop.lost`, `stop.refused`, `stop.answered` (requests) and `stop.rounds`, of one process and of two workers
    together; `stop.unready_ms` and `stop.seconds`, medians; `stop.exit_codes`, how many were not 0."""
    rounds = arguments.rounds or ROUNDS[arguments.quick]
    cores = two_cores()
    bundle = work_bundle(ROOT, ADS, "light", seed=0).absolute()
    bodies: list[dict[str, object]] = [{"user_id": user, "k": 10, "context": {}} for user in range(USERS)]
    first = http_request("/v1/rank", json.dumps(bodies[0]).encode())
    found: dict[str, list[Round]] = {}
    with ended_cleanly(), ExitStack() as stack:
        port = stack.enter_context(redis_server())
        two = ("--workers", "2", "--redis-url", f"redis://127.0.0.1:{port}/0")
        for name, options in (("one process", ()), ("two workers", two)):
            found[name] = []
            for _ in range(rounds):
                scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                server = start_ours(bundle, scratch, cores.server, *options, *OPTIONS)
                try:
                    server.wait_until_it_answers(first, 60)
                    url = "http://{}:{}".format(*server.address)
                    load = stopped_under_load(server.root, url, bodies, RATE, BEFORE_S)
                    found[name].append(asyncio.run(load))
                finally:
                    server.stop()
    return told(found)


async def stopped_under_load(
    process: "subprocess.Popen[Any]", url: str, bodies: Sequence[dict[str, object]], rate: float, before_s: float
) -> Round:
    """Rank requests to `url` at `rate`, SIGTERM after `before_s`, until the process has ended. TimeoutError after
    LONGEST_S."""
    done, random = Round(), np.random.default_rng(0)
    signalled = time.perf_counter() + before_s
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(url)) for _ in range(CLIENTS)]
        async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(_end(process, done, signalled))
            tasks.create_task(_watch(url, done, signalled))
            due = time.perf_counter()
            for number in itertools.count():
                if done.exit_code is not None:
                    break
                due += random.exponential(1 / rate)
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                body = bodies[number % len(bodies)]
                tasks.create_task(_ask(clients[number % CLIENTS], body, done, signalled))
    return done


def _client(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=10.0, limits=httpx.Limits(max_connections=None))


async def _end(process: "subprocess.Popen[Any]", done: Round, at: float) -> None:
    """Send the signal at its time, and wait for the end."""
    await asyncio.sleep(max(at - time.perf_counter(), 0))
    process.send_signal(signal.SIGTERM)
    while process.poll() is None:
        await asyncio.sleep(POLL_S)
    done.seconds = time.perf_counter() - at
    done.exit_code = process.returncode


async def _watch(url: str, done: Round, signalled: float) -> None:
    """Ask who is ready as a balancer does, with a connection for each question, until nobody is there."""
    while done.exit_code is None:
        try:
            async with _client(url) as client:
                ready = await client.get("/readyz")
        except httpx.TransportError:
            if time.perf_counter() > signalled:
                return
            raise
        if ready.status_code == 503 and math.isnan(done.unready_ms):
            done.unready_ms = (time.perf_counter() - signalled) * 1e3
        await asyncio.sleep(POLL_S)


async def _ask(client: httpx.AsyncClient, body: dict[str, object], done: Round, signalled: float) -> None:
    sent = time.perf_counter()
    try:
        answer = await client.post("/v1/rank", json=body)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        done.refused += 1
    except httpx.HTTPError as error:
        done.lost.append(f"{sent - signalled:+.3f} s: {type(error).__name__}: {error}")
    else:
        done.statuses[answer.status_code] += 1
        done.after += sent > signalled


def told(found: dict[str, list[Round]]) -> Report:
    """Figures and the table."""
    report = Report("stop")
    every = [each for rounds in found.values() for each in rounds]
    report.figures = {
        "stop.rounds": len(every),
        "stop.lost": sum(len(each.lost) for each in every),
        "stop.rounds_with_loss": sum(bool(each.lost) for each in every),
        "stop.answered": sum(each.statuses.total() for each in every),
        "stop.not_200": sum(each.statuses.total() - each.statuses[200] for each in every),
        "stop.answered_after_signal": sum(each.after for each in every),
        "stop.refused": sum(each.refused for each in every),
        "stop.unready_ms": _median([each.unready_ms for each in every]),
        "stop.seconds": float(np.median([each.seconds for each in every])),
        "stop.exit_codes": sum(each.exit_code != 0 for each in every),
    }
    columns = ("served by", "stops", "answered", "of these after the signal", "lost", "refused", "503 after ms", "s")
    rows: list[tuple[str | int | float, ...]] = [
        (
            name,
            len(rounds),
            sum(each.statuses.total() for each in rounds),
            sum(each.after for each in rounds),
            sum(len(each.lost) for each in rounds),
            sum(each.refused for each in rounds),
            _median([each.unready_ms for each in rounds]),
            float(np.median([each.seconds for each in rounds])),
        )
        for name, rounds in found.items()
    ]
    report.tables.append(Table(f"Stops under {RATE:g} requests a second", columns, rows))
    report.notes += [f"lost: {said}" for each in every for said in each.lost[:3]]
    return report


def _median(values: Sequence[float]) -> float:
    """Of those that were seen; NaN when none was."""
    seen = [each for each in values if not math.isnan(each)]
    return float(np.median(seen)) if seen else float("nan")
