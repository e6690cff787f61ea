"""Another bundle under load: what swaps cost the requests, and whether memory grows with them.

One `adrank serve` process on a core of its own answers requests that arrive by a Poisson process at 60 % of what it
sustains, whether or not earlier ones are answered; latency counts from the intended start. Another process changes the
desired state at its times. The bundles are of one size with different weights and ads; no bundle stays loaded once
another took its place, so that each swap opens, checks, proves and warms one, and lets one go.

A request belongs to a swap when it was to start between the change of the state and SETTLE_S after the new bundle was
served: loading, the exchange and the freeing of the old one are in it. All others are the steady state of the same run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import numpy.typing as npt

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.http.load import STALLED_S, Connections, LoadError, closed_loop, http_request, poisson
from benchmarks.http.process import Cores, ServerProcess, ended_cleanly, on_core, two_cores
from benchmarks.http.servers import start_ours
from benchmarks.market import Market
from benchmarks.report import Report, Table
from benchmarks.work import HISTORY_NAME

ADS = (100_000, 20_000)
"""Of each bundle, and in the small version."""
SWAPS = (20, 6)
"""Under load."""
LATER = (200, 40)
"""One after the other without load, for the memory."""
EVERY_S = 3.0
"""Between two swaps under load; one takes about a third of it."""
SHARE = 0.6
"""Of the capacity."""
CAPACITY_S = 3.0
SETTLE_S = 0.5
DRIVER_S = 3.0
"""For the other process to start, which takes a part of the core that asks."""
GATE = (
    *("--gate-overlap", "0", "--gate-psi", "99", "--gate-score-shift", "99", "--gate-latency-ratio", "3"),
    *("--gate-verdict-seconds", "5"),
)
"""The bundles have nothing in common but their sizes. Under load every swap is judged anew, by a process on the core of
the server; without load, where one follows the other within a second, one in ten."""
REQUESTS = 64
K = 10
CONNECTIONS = 64
EVERY_STATUS = (*range(200, 600),)
REST_S = 1.0
"""After the last swap, until memory is looked at."""

Ranking = list[tuple[int, float]]
"""Ads and their pCTR, best first."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    request: int
    started: float
    """Intended, in seconds of the monotonic clock."""
    ms: float
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """What the answers of one run of load are worth."""

    failed: int
    mixed: int
    """Successes that are not what the bundle they name answers by itself."""
    degraded: int
    """Successes that say that they are degraded: a user was not read in time."""
    swapping: npt.NDArray[np.float64]
    steady: npt.NDArray[np.float64]
    """Milliseconds of requests during swaps, and of all others."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--ads N`, `--swaps N`, `--later N`."""
    parser.add_argument("--ads", type=int, metavar="N", help=f"ads of each bundle (default {ADS[0]:,})")
    parser.add_argument("--swaps", type=int, metavar="N", help=f"swaps under load (default {SWAPS[0]})")
    parser.add_argument("--later", type=int, metavar="N", help=f"swaps without load afterwards (default {LATER[0]})")


def run(arguments: argparse.Namespace) -> Report:
    """`swap.failed`, `swap.mixed`, `swap.degraded` (requests); `swap.p99_ratio` of `swap.p99_ms` during swaps and
    `swap.steady_p99_ms`, `swap.p50_ratio`; `swap.seconds` from a change to its being served; `swap.rss_growth`, a
    share, over `swap.later` swaps; `swap.rate`, requests a second."""
    quick = arguments.quick
    ads, swaps, later = (
        given or sizes[quick]
        for given, sizes in ((arguments.ads, ADS), (arguments.swaps, SWAPS), (arguments.later, LATER))
    )
    cores = two_cores()
    bundles = [work_bundle(ROOT, ads, "light", seed=seed).absolute() for seed in (0, 1)]
    market = Market(ads, REQUESTS, 0)
    requests = [http_request("/v1/rank", json.dumps(body(market, user)).encode()) for user in range(REQUESTS)]
    with ended_cleanly(), tempfile.TemporaryDirectory() as temporary, on_core(cores.load):
        scratch = Path(temporary)
        expected = {bundle.name: alone(bundle, scratch, cores, requests) for bundle in bundles}
        server, state = serve(bundles[0], scratch, cores, requests[0])
        try:
            rate = SHARE * closed_loop(server.address, requests, 1, CAPACITY_S).throughput
            memory = [resident_mib(server)]
            answers, windows = load_and_swap(server, state, bundles, requests, rate, swaps)
            sleep(REST_S)
            memory.append(resident_mib(server))
            for _ in range(2):
                drive(state, bundles, later // 2, 0.0, perf_counter())
                sleep(REST_S)
                memory.append(resident_mib(server))
        finally:
            server.stop()
    judged = judge(answers, expected, windows)
    report = Report("swap")
    tell(report, judged, windows, rate, memory, later)
    return report


def body(market: Market, user: int) -> dict[str, object]:
    """A request that says who the user is: demo users differ from bundle to bundle."""
    features = {"profile": market.profile(user), "history": {HISTORY_NAME: market.clicks[user].tolist()}}
    return {"user_id": user, "k": K, "context": {}, "user": features}


def alone(bundle: Path, scratch: Path, cores: Cores, requests: Sequence[bytes]) -> list[Ranking]:
    """What a server that never knew another bundle answers."""
    folder = scratch / f"alone-{bundle.name}"
    folder.mkdir()
    server = start_ours(bundle, folder, cores.server)
    try:
        return [ranking(json.loads(server.wait_until_it_answers(each, 120))) for each in requests]
    finally:
        server.stop()


def serve(bundle: Path, scratch: Path, cores: Cores, request: bytes) -> tuple[ServerProcess, Path]:
    """A server that keeps no bundle it does not need, and the folder of its state."""
    folder, state = scratch / "served", scratch / "state"
    folder.mkdir()
    options = ["--state-folder", str(state), "--keep-bundles", "0", "--bundle-cache", str(scratch / "cache"), *GATE]
    server = start_ours(bundle, folder, cores.server, *options)
    try:
        server.wait_until_it_answers(request, 120)
    except BaseException:
        server.stop()
        raise
    return server, state


def load_and_swap(
    server: ServerProcess, state: Path, bundles: Sequence[Path], requests: Sequence[bytes], rate: float, swaps: int
) -> tuple[list[Answer], list[tuple[float, float]]]:
    """Requests at `rate` while the state changes, and from when to when each swap was."""
    seconds = (swaps + 1) * EVERY_S
    start = perf_counter() + DRIVER_S
    with begun(state, bundles, swaps, EVERY_S, start + EVERY_S / 2) as driver:
        arrivals = start + poisson(int(rate * seconds)) / rate
        answers = offered(server.address, requests, arrivals.tolist())
        return answers, windows_of(driver)


def offered(address: tuple[str, int], requests: Sequence[bytes], starts: list[float]) -> list[Answer]:
    """Requests that start at these times. LoadError when one is not answered at all."""
    pool = Connections(address, CONNECTIONS, EVERY_STATUS)
    waiting: deque[tuple[int, float]] = deque()
    under_way: dict[int, int] = {}
    answers: list[Answer] = []
    try:
        upcoming, n = 0, len(starts)
        while len(answers) < n:
            for each in pool.completed():
                request = under_way.pop(id(each))
                answers.append(
                    Answer(request, each.started, (perf_counter() - each.started) * 1e3, each.status, each.body)
                )
            now = perf_counter()
            while upcoming < n and starts[upcoming] <= now:
                waiting.append((upcoming % len(requests), starts[upcoming]))
                upcoming += 1
            while waiting and pool.idle:
                pool.idle.rotate(1)  # the one used last: the server closes those that were idle for 5 s
                request, started = waiting.popleft()
                under_way[id(pool.idle[0])] = request
                pool.send(requests[request], started)
            if upcoming and now > starts[upcoming - 1] + STALLED_S:
                raise LoadError(f"no answer for {STALLED_S:g} s")
    finally:
        pool.close()
    return answers


def begun(state: Path, bundles: Sequence[Path], count: int, every_s: float, start: float) -> "subprocess.Popen[str]":
    """The process that swaps: first to the second bundle, then to the first, and so on."""
    names = ",".join(bundle.name for bundle in reversed(bundles))
    command = [sys.executable, "-m", "benchmarks.swap_driver", str(state), names, str(count), str(every_s), str(start)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def drive(state: Path, bundles: Sequence[Path], count: int, every_s: float, start: float) -> list[tuple[float, float]]:
    """Swaps, and from when to when each was."""
    with begun(state, bundles, count, every_s, start) as driver:
        return windows_of(driver)


def windows_of(driver: "subprocess.Popen[str]") -> list[tuple[float, float]]:
    """What it says once it ends. OSError when it fails."""
    said, _ = driver.communicate()
    if driver.returncode:
        raise OSError(f"the swaps ended with code {driver.returncode}")
    return [(asked, served) for asked, served in map(json.loads, said.splitlines())]


def judge(
    answers: Sequence[Answer], expected: dict[str, list[Ranking]], windows: Sequence[tuple[float, float]]
) -> Judged:
    """Count failures and mixed answers, and part the latencies."""
    failed = sum(answer.status != 200 for answer in answers)
    mixed = degraded = 0
    for answer in answers:
        if answer.status == 200:
            said = json.loads(answer.body)
            if said["degraded"]:  # says itself that it is not what the bundle would answer
                degraded += 1
            else:
                mixed += ranking(said) != expected[said["bundle_id"]][answer.request]
    started = np.array([answer.started for answer in answers])
    ms = np.array([answer.ms for answer in answers])
    during = np.zeros(len(answers), dtype=np.bool_)
    for asked, served in windows:
        during |= (started >= asked) & (started <= served + SETTLE_S)
    return Judged(failed, mixed, degraded, ms[during], ms[~during])


def ranking(body: dict[str, list[dict[str, float]]]) -> Ranking:
    """The ads of an answer."""
    return [(int(ad["ad_id"]), ad["pctr"]) for ad in body["ads"]]


def resident_mib(server: ServerProcess) -> float:
    """Resident memory of its processes, mapped files included."""
    total = 0
    for pid in server.processes():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total / 1024


def tell(
    report: Report,
    judged: Judged,
    windows: Sequence[tuple[float, float]],
    rate: float,
    memory: Sequence[float],
    later: int,
) -> None:
    """Figures and tables."""
    seconds = [served - asked for asked, served in windows]
    quantiles = {
        name: [float(np.quantile(ms, q)) for q in (0.5, 0.95, 0.99)]
        for name, ms in (("during swaps", judged.swapping), ("steady", judged.steady))
    }
    (p50, _, p99), (steady_p50, _, steady_p99) = quantiles.values()
    report.figures = {
        "swap.failed": judged.failed,
        "swap.mixed": judged.mixed,
        "swap.degraded": judged.degraded,
        "swap.p50_ratio": p50 / steady_p50,
        "swap.p99_ratio": p99 / steady_p99,
        "swap.p99_ms": p99,
        "swap.steady_p99_ms": steady_p99,
        "swap.seconds": float(np.median(seconds)),
        "swap.longest_seconds": max(seconds),
        "swap.rss_growth": memory[-1] / memory[1] - 1,
        "swap.later": later,
        "swap.rate": rate,
    }
    rows: list[tuple[str | int | float, ...]] = [
        (name, len(ms), *quantiles[name], float(ms.max()))
        for name, ms in (("during swaps", judged.swapping), ("steady", judged.steady))
    ]
    title = f"{len(windows)} swaps under {rate:.0f} requests a second, {SHARE:.0%} of the capacity: milliseconds"
    report.tables.append(Table(title, ("requests", "number", "p50", "p95", "p99", "longest"), rows))
    names = ("before the first", f"after {len(windows)}", f"after {later // 2} more", f"after {later} more")
    report.tables.append(
        Table("Resident memory by swaps, MiB", ("swaps", "MiB"), list(zip(names, memory, strict=True)))
    )
