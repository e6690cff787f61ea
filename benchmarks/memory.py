"""Memory of several worker processes that serve one bundle, against that of one.

Each worker loads the bundle as the service does and ranks requests of different users, so that it touches what it
reads. What counts is proportional set size: a page that n processes map counts 1/n for each, so the sum over processes
is what the machine spends. The same workers with a bundle of a few ads are taken off: interpreter, libraries and
buffers, which no bundle changes.
"""

import argparse
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.memory_worker import READY
from benchmarks.report import Report, Table
from bundle.manifest import read_manifest

WORKERS = (1, 4)
TINY = 1_000
"""Ads of the bundle whose memory is taken off."""
QUICK = 300_000
"""Ads of the small version; with fewer, what a worker holds anyway is more than the bundle."""
REQUESTS = 200
"""Requests each worker ranks, of as many users."""
MIB = 1024.0
"""Kilobytes, in which Linux counts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The catalogue's size."""
    parser.add_argument("--ads", type=int, metavar="N", default=1_000_000, help="ads of the bundle (default 1000000)")


@dataclass(frozen=True, slots=True)
class Held:
    """Proportional set size of some processes together, MiB."""

    all: float
    anonymous: float
    """The part that no file backs: what every process has for itself."""


def run(arguments: argparse.Namespace) -> Report:
    """`memory.*`: MiB of the bundle's files, of 1 and 4 workers with it and with a tiny one, and
    `memory.pss_ratio_4_workers`: what 4 workers spend on the bundle ÷ what 1 does. 1: they share all of it."""
    ads = min(arguments.ads, QUICK) if arguments.quick else arguments.ads
    bundles = {"tiny": work_bundle(ROOT, TINY, "light"), "bundle": work_bundle(ROOT, ads, "light")}
    files = sum(each.bytes for each in read_manifest(bundles["bundle"]).files.values()) / 2**20
    held = {(name, n): measure(folder, n) for name, folder in bundles.items() for n in WORKERS}
    report = Report("memory")
    few, many = WORKERS
    spent = {n: held["bundle", n].all - held["tiny", n].all for n in WORKERS}
    report.figures = {
        "memory.ads": ads,
        "memory.files_mib": files,
        **{f"memory.{name}_{n}_workers_mib": each.all for (name, n), each in held.items()},
        f"memory.pss_ratio_{many}_workers": spent[many] / spent[few],
    }
    rows: list[tuple[str | int | float, ...]] = [
        (n, held["bundle", n].all, held["bundle", n].anonymous, held["tiny", n].all, spent[n]) for n in WORKERS
    ]
    columns = ("workers", "with the bundle", "of it private", "with a tiny bundle", "spent on the bundle")
    report.tables.append(Table(f"Proportional set size, MiB: {ads:,} ads, {files:,.0f} MiB of files", columns, rows))
    return report


def measure(folder: Path, workers: int) -> Held:
    """Proportional set size of that many workers once all of them have ranked their requests.

    OSError when a worker ends early, or the system does not tell (only Linux does).
    """
    command = [sys.executable, "-m", "benchmarks.memory_worker", str(folder.absolute()), str(REQUESTS)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
                )
            )
            for _ in range(workers)
        ]
        try:
            for process in started:
                assert process.stdout is not None
                if process.stdout.readline().strip() != READY:
                    raise OSError(f"a worker with {folder} ended with exit code {process.wait()}")
            found = [_proportional(process.pid) for process in started]
        finally:
            for process in started:
                process.kill()
    return Held(sum(each.all for each in found), sum(each.anonymous for each in found))


def _proportional(pid: int) -> Held:
    """Of one process, from what Linux says of it."""
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {words[0]: float(words[1]) for words in lines}
    return Held(kilobytes["Pss:"] / MIB, kilobytes["Pss_Anon:"] / MIB)
