"""Overload with and without a ladder of fine-rankers: how many answers a fine-ranker still gives within the deadline.

One `adrank serve` process on a core of its own; requests arrive by a Poisson process, from half to three times of what
the full rung sustains, whether or not earlier ones are answered. Latency counts from the intended start, waiting for a
free connection included. The networks have random weights: what a rung is worth is measured where it is exported.
"""

import argparse
import json
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.http.load import Connections, closed_loop, http_request, poisson
from benchmarks.http.process import ServerProcess, ended_cleanly, two_cores
from benchmarks.http.servers import start_ours
from benchmarks.report import Report, Table
from bundle.manifest import read_manifest

ADS = 100_000
KEEP = 500
"""Ads that are fine-ranked."""
DEADLINE_MS = 200
CONNECTIONS = 128
"""Twice max_in_flight: the service can refuse."""
LOADS = (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)
QUICK = (0.5, 1.5, 3.0)
SECONDS = (6.0, 2.0)
"""Of arrivals at one load, and in the small version."""
USERS = 64
RUNGS = ("light",)
OK, REFUSED = 200, 429
SETTINGS = {"with": "auto", "without": "off"}
"""The ladder and what `adrank serve --ladder` is told."""


@dataclass
class Outcome:
    """What came of the requests of one load."""

    offered: int
    ms: list[float] = field(default_factory=list)
    """Of those answered, not of those refused."""
    rungs: Counter[str] = field(default_factory=Counter)
    in_time: int = 0
    """Scored by a fine-ranker, and answered within the deadline."""
    refused: int = 0

    def take(self, ms: float, status: int, body: bytes) -> None:
        """One answer."""
        if status == REFUSED:
            self.refused += 1
            return
        rung = json.loads(body)["rung"]
        self.ms.append(ms)
        self.rungs[rung or "none"] += 1
        self.in_time += rung is not None and ms <= DEADLINE_MS

    def p99(self) -> float:
        """Milliseconds; of nothing, NaN."""
        return float(np.quantile(self.ms, 0.99)) if self.ms else float("nan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--ads N`."""
    parser.add_argument("--ads", type=int, default=ADS, metavar="N", help=f"ads of the catalogue (default {ADS:,})")


def run(arguments: argparse.Namespace) -> Report:
    """`ladder.<with|without>.x<load>.in_time`, `.p99_ms`, `.full`, `.light`, `.none`, `.refused` (shares of what was
    offered), and `ladder.sustained`, requests a second of the full rung."""
    cores, loads = two_cores(), QUICK if arguments.quick else LOADS
    bundle = work_bundle(ROOT, arguments.ads, "paper", users=USERS, rungs=RUNGS)
    requests = [http_request("/v1/rank", _body(user)) for user in range(USERS)]
    report = Report("ladder")
    _worths(report, bundle)
    outcomes: dict[str, dict[float, Outcome]] = {name: {} for name in SETTINGS}
    options = ("--prerank-keep", str(KEEP))
    with ended_cleanly(), tempfile.TemporaryDirectory() as temporary:
        servers: dict[str, ServerProcess] = {}
        try:
            for name, setting in SETTINGS.items():
                scratch = Path(temporary) / name
                scratch.mkdir()
                servers[name] = start_ours(bundle, scratch, cores.server, *options, "--ladder", setting)
                servers[name].wait_until_it_answers(requests[0], 120)
                servers[name].pause()
            with _alone(servers["without"]) as server:
                sustained = closed_loop(server.address, requests, 1, SECONDS[arguments.quick]).throughput
            for i, load in enumerate(loads):
                for name in list(SETTINGS) if i % 2 == 0 else reversed(list(SETTINGS)):
                    with _alone(servers[name]) as server:
                        count = max(20, int(load * sustained * SECONDS[arguments.quick]))
                        outcomes[name][load] = offer(server.address, requests, load * sustained, count)
        finally:
            for server in servers.values():
                server.stop()
    report.figures["ladder.sustained"] = sustained
    _tables(report, outcomes, sustained)
    return report


def offer(address: tuple[str, int], requests: Sequence[bytes], rate: float, count: int) -> Outcome:
    """`count` requests at `rate` a second, each with DEADLINE_MS."""
    pool = Connections(address, CONNECTIONS, accepted=(OK, REFUSED))
    outcome, waiting, done = Outcome(count), deque[float](), 0
    try:
        starts = (perf_counter() + 0.01 + poisson(count) / rate).tolist()
        upcoming = 0
        while done < count:
            for each in pool.completed():
                outcome.take((perf_counter() - each.started) * 1e3, each.status, each.body)
                done += 1
            now = perf_counter()
            while upcoming < count and starts[upcoming] <= now:
                waiting.append(starts[upcoming])
                upcoming += 1
            while waiting and pool.idle:
                pool.idle.rotate(1)  # the one used last: the server closes those that were idle for 5 s
                pool.send(requests[done % len(requests)], waiting.popleft())
    finally:
        pool.close()
    return outcome


def _body(user: int) -> bytes:
    return json.dumps({"user_id": str(user), "k": 10, "deadline_ms": DEADLINE_MS}).encode()


@contextmanager
def _alone(server: ServerProcess) -> Iterator[ServerProcess]:
    """The server runs, and is stopped again afterwards: only one of them has the core."""
    server.resume()
    try:
        yield server
    finally:
        server.pause()


def _worths(report: Report, bundle: Path) -> None:
    rows: list[tuple[str | int | float, ...]] = [
        (name, model, worth.work(), worth.bytes / 2**20, worth.p50_ms)
        for name, model, worth in read_manifest(bundle).stages.finerank.rungs()
    ]
    columns = ("rung", "model", "multiply-adds", "MiB", "p50 ms")
    report.tables.append(Table(f"The ladder, {KEEP} candidates", columns, rows))


def _tables(report: Report, outcomes: dict[str, dict[float, Outcome]], sustained: float) -> None:
    rows: list[tuple[str | int | float, ...]] = []
    for name, by_load in outcomes.items():
        for load, found in by_load.items():
            shares = {rung: found.rungs[rung] / found.offered for rung in ("full", *RUNGS, "none")}
            in_time, refused = found.in_time / found.offered, found.refused / found.offered
            cells = [f"{share:.1%}" for share in (in_time, *shares.values(), refused)]
            rows.append((name, f"{load:g}", found.offered, cells[0], found.p99(), *cells[1:]))
            key = f"ladder.{name}.x{load:g}"
            report.figures |= {f"{key}.in_time": in_time, f"{key}.p99_ms": found.p99(), f"{key}.refused": refused}
            report.figures |= {f"{key}.{rung}": share for rung, share in shares.items()}
            report.series.setdefault(f"ladder.in_time.{name} the ladder", []).append((load, in_time))
    columns = ("ladder", "load", "offered", "in time", "p99 ms", "full", *RUNGS, "pre-rank", "refused")
    title = (
        f"Loads in multiples of the {sustained:.0f} requests a second that the full rung sustains, deadline "
        f"{DEADLINE_MS} ms; in time: by a fine-ranker, within the deadline from the intended start"
    )
    report.tables.append(Table(title, columns, rows))
