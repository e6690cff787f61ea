"""Another bundle under load: what swaps cost the requests, and whether memory grows with them.

One `adrank serve` process on a core of its own answers requests that arrive by a Poisson process at 60 % of what it
sustains, whether or not earlier ones are answered; latency counts from the intended start. Another process changes the
desired state at its times. The bundles are of one size with different weights and ads; no bundle stays loaded once
another took its place, so that each swap judges, opens, proves and warms one, and lets one go.

Two cases, each with a server of its own. In the first all of it happens on the core that serves, the gate's process
included: there is no spare one. Its figures are the plain ones (`swap.p99_ratio`), because what holds there holds with
more cores. In the second (`swap.spare.p99_ratio`) the gate's process may run on the other core as well, where the load
sleeps while nothing is due; how late the load was is in the figures.

A request belongs to a swap when it was to start between the change of the state and SETTLE_S after the new bundle was
served: the gate, loading, the exchange and the freeing of the old one are in it. All others are the steady state of the
same run, which is to last at least as long.

A third case, `agreement`, asks how long several services take to serve the same: swap_agreement.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.http.load import closed_loop, http_request, poisson
from benchmarks.http.process import Cores, ServerProcess, ended_cleanly, on_core, two_cores
from benchmarks.http.servers import start_ours
from benchmarks.market import Market
from benchmarks.report import Report, Table
from benchmarks.swap_agreement import measured
from benchmarks.swap_figures import Ranking, Window, judge, ranking, tell
from benchmarks.swap_load import Answer, offered
from benchmarks.swap_steps import tell_steps
from benchmarks.work import HISTORY_NAME

ADS = (100_000, 20_000)
"""Of each bundle, and in the small version."""
SWAPS = (20, 4)
"""Under load, in each case."""
LATER = (200, 40)
"""One after the other without load, for the memory."""
AGREEMENTS = (6, 2)
"""Under several services that share a Redis."""
CASES = ("one", "spare", "agreement")
EVERY_S = (12.0, 8.0)
"""Between the beginnings of two swaps under load; one takes less than half of it."""
REQUESTS_AT_LEAST = (20_000, 0)
"""Under load, in each case: a hundred beyond the p99 of either part. A slow machine takes longer for them."""
SHARE = 0.6
"""Of the capacity."""
CAPACITY_S = 3.0
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
REST_S = 1.0
"""After the last swap, until memory is looked at."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--ads N`, `--swaps N`, `--later N`, `--agreements N`, `--cases CASE ...`."""
    parser.add_argument("--ads", type=int, metavar="N", help=f"ads of each bundle (default {ADS[0]:,})")
    parser.add_argument("--swaps", type=int, metavar="N", help=f"swaps under load (default {SWAPS[0]})")
    parser.add_argument("--later", type=int, metavar="N", help=f"swaps without load afterwards (default {LATER[0]})")
    parser.add_argument("--agreements", type=int, metavar="N", help=f"swaps over Redis (default {AGREEMENTS[0]})")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, help="which cases (default all)")


@dataclass(frozen=True, slots=True)
class Course:
    """What each case does."""

    bundles: Sequence[Path]
    requests: Sequence[bytes]
    cores: Cores
    swaps: int
    every_s: float
    at_least: int


def run(arguments: argparse.Namespace) -> Report:
    """For a core that has to do everything, and under `swap.spare.` with the gate's process on any core: `swap.failed`,
    `swap.mixed`, `swap.degraded` (requests, of `swap.requests`, `swap.requests_during` of them during swaps);
    `swap.p99_ratio` of `swap.p99_ms` during swaps and `swap.steady_p99_ms`, with `swap.p99_ratio_low` and `_high` (95 %
    by swaps), `swap.p50_ratio`; `swap.seconds` from a change to its being served; `swap.late_p99_ms` of the load;
    `swap.rate`, requests a second. For the first case `swap.rss_growth`, a share, over `swap.later` swaps.
    `swap.load_ms` and `swap.longest_step_ms`: see swap_steps.py. `swap.agreement.`: see swap_agreement.py."""
    quick, cases = arguments.quick, arguments.cases
    ads, swaps, later, agreements = (
        given or sizes[quick]
        for given, sizes in (
            (arguments.ads, ADS),
            (arguments.swaps, SWAPS),
            (arguments.later, LATER),
            (arguments.agreements, AGREEMENTS),
        )
    )
    cores = two_cores()
    bundles = [work_bundle(ROOT, ads, "light", seed=seed).absolute() for seed in (0, 1)]
    market = Market(ads, REQUESTS, 0)
    requests = [http_request("/v1/rank", json.dumps(body(market, user)).encode()) for user in range(REQUESTS)]
    course = Course(bundles, requests, cores, swaps, EVERY_S[quick], REQUESTS_AT_LEAST[quick])
    report = Report("swap")
    with ended_cleanly(), tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if "agreement" in cases:  # first: without a Redis on this machine it says so before the others took their time
            both = (cores.server, cores.load)
            report.add(measured(bundles, requests[0], both, agreements, GATE, scratch / "agreement"))
        if loaded := [case for case in CASES[:2] if case in cases]:
            with on_core(cores.load):
                under_loads(report, course, loaded, scratch, later)
    return report


def under_loads(report: Report, course: Course, cases: Sequence[str], scratch: Path, later: int) -> None:
    """The cases `one` and `spare`, and what taking up a bundle costs."""
    tell_steps(report, list(course.bundles))
    expected = {bundle.name: alone(bundle, scratch, course.cores, course.requests) for bundle in course.bundles}
    if "one" in cases:
        memory = under_load(report, course, expected, scratch / "one", "one core for all", "swap", later)
        report.figures |= {"swap.rss_growth": memory[-1] / memory[1] - 1, "swap.later": later}
        names = ("before the first", f"after {course.swaps}", f"after {later // 2} more", f"after {later} more")
        rows: list[tuple[str | int | float, ...]] = list(zip(names, memory, strict=True))
        report.tables.append(Table("Resident memory by swaps, MiB", ("swaps", "MiB"), rows))
    if "spare" in cases:
        under_load(report, course, expected, scratch / "spare", "the gate's process on any core", "swap.spare", 0)


def under_load(
    report: Report,
    course: Course,
    expected: dict[str, list[Ranking]],
    scratch: Path,
    case: str,
    prefix: str,
    later: int,
) -> list[float]:
    """One case, told in the report. Its resident memory before and after the swaps under load, and after each half of
    `later` more without load."""
    server, state = serve(course.bundles[0], scratch, course.cores, course.requests[0])
    try:
        rate = SHARE * closed_loop(server.address, course.requests, 1, CAPACITY_S).throughput
        memory = [resident_mib(server)]
        widened = (server.main, course.cores) if prefix != "swap" else None
        answers, late, windows = load_and_swap(server, state, course, rate, widened)
        sleep(REST_S)
        memory.append(resident_mib(server))
        for _ in range(2 if later else 0):
            drive(state, course.bundles, later // 2, 0.0, perf_counter())
            sleep(REST_S)
            memory.append(resident_mib(server))
    finally:
        server.stop()
    tell(report, case, prefix, judge(answers, expected, windows), windows, late, rate)
    return memory


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
    folder.mkdir(parents=True)
    options = ["--state-folder", str(state), "--keep-bundles", "0", "--bundle-cache", str(scratch / "cache"), *GATE]
    server = start_ours(bundle, folder, cores.server, *options)
    try:
        server.wait_until_it_answers(request, 120)
    except BaseException:
        server.stop()
        raise
    return server, state


def load_and_swap(
    server: ServerProcess, state: Path, course: Course, rate: float, widened: tuple[int, Cores] | None
) -> tuple[list[Answer], list[float], list[Window]]:
    """Requests at `rate` while the state changes, how late each was sent, and from when to when each swap was."""
    seconds = max((course.swaps + 1) * course.every_s, course.at_least / rate)
    every_s = seconds / (course.swaps + 1)
    start = perf_counter() + DRIVER_S
    with begun(state, course.bundles, course.swaps, every_s, start + every_s / 2, widened) as driver:
        arrivals = start + poisson(int(rate * seconds)) / rate
        answers, late = offered(server.address, course.requests, arrivals.tolist())
        return answers, late, windows_of(driver)


def begun(
    state: Path,
    bundles: Sequence[Path],
    count: int,
    every_s: float,
    start: float,
    widened: tuple[int, Cores] | None = None,
) -> "subprocess.Popen[str]":
    """The process that swaps: first to the second bundle, then to the first, and so on. `widened`: a process whose
    children may run on both cores."""
    names = ",".join(bundle.name for bundle in reversed(bundles))
    command = [sys.executable, "-m", "benchmarks.swap_driver", str(state), names, str(count), str(every_s), str(start)]
    if widened is not None:
        parent, cores = widened
        command += [str(parent), str(cores.server), str(cores.load)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def drive(state: Path, bundles: Sequence[Path], count: int, every_s: float, start: float) -> list[Window]:
    """Swaps, and from when to when each was."""
    with begun(state, bundles, count, every_s, start) as driver:
        return windows_of(driver)


def windows_of(driver: "subprocess.Popen[str]") -> list[Window]:
    """What it says once it ends. OSError when it fails."""
    said, _ = driver.communicate()
    if driver.returncode:
        raise OSError(f"the swaps ended with code {driver.returncode}")
    return [(asked, served) for asked, served in map(json.loads, said.splitlines())]


def resident_mib(server: ServerProcess) -> float:
    """Resident memory of its processes, mapped files included."""
    total = 0
    for pid in server.processes():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return total / 1024
