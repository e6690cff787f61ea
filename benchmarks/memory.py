"""Memory of several worker processes that serve one bundle, against that of one, and how long one takes to open.

Each worker loads the bundle as the service does and ranks requests of different users, so that it touches what it
reads. What counts is proportional set size: a page that n processes map counts 1/n for each, so the sum over processes
is what the machine spends. The same workers with a bundle of a few ads are taken off: interpreter, libraries and
buffers, which no bundle changes.

Opening is what `adrank serve` does before it answers: checksums of all files, checks of the arrays, golden rows,
warm-up; here from the page cache, as after a copy, and the checksums alone.
"""

import argparse
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import get_args

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.memory_worker import READY
from benchmarks.report import Report, Table
from bundle.folder import verify_files
from bundle.manifest import read_manifest
from bundle.rounding import Coded
from service.loading import load_bundle
from service.settings import Settings

WORKERS = (1, 4)
TINY = 1_000
"""Ads of the bundle whose memory is taken off."""
QUICK = 300_000
"""Ads of the small version; with fewer, what a worker holds anyway is more than the bundle."""
REQUESTS = 200
"""Requests each worker ranks, of as many users."""
OPENINGS = 5
"""Of each, in turns; the median counts, after a first one that fills the page cache."""
MIB = 1024.0
"""Kilobytes, in which Linux counts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The catalogue's size, and what its vectors are stored in."""
    parser.add_argument("--ads", type=int, metavar="N", default=1_000_000, help="ads of the bundle (default 1000000)")
    parser.add_argument("--ad-vectors", choices=get_args(Coded), default="int8", help="default int8")


@dataclass(frozen=True, slots=True)
class Held:
    """Proportional set size of some processes together, MiB."""

    all: float
    anonymous: float
    """The part that no file backs: what every process has for itself."""


def run(arguments: argparse.Namespace) -> Report:
    """`memory.*`: MiB of the bundle's files, of 1 and 4 workers with it and with a tiny one;
    `memory.pss_ratio_4_workers`: what 4 workers spend on the bundle ÷ what 1 does, 1 when they share all of it;
    `memory.resident_over_files`: what 1 worker spends ÷ the bundle's files; `memory.open_s` to open it, and
    `memory.checksums_s` of that."""
    ads = min(arguments.ads, QUICK) if arguments.quick else arguments.ads
    bundles = {
        "tiny": work_bundle(ROOT, TINY, "light"),
        "bundle": work_bundle(ROOT, ads, "light", vectors=arguments.ad_vectors),
    }
    opening, checksums = opened(bundles["bundle"])
    files = sum(each.bytes for each in read_manifest(bundles["bundle"]).files.values()) / 2**20
    held = {(name, n): measure(folder, n) for name, folder in bundles.items() for n in WORKERS}
    report = Report("memory")
    few, many = WORKERS
    spent = {n: held["bundle", n].all - held["tiny", n].all for n in WORKERS}
    report.figures = {
        "memory.ads": ads,
        "memory.files_mib": files,
        "memory.open_s": opening,
        "memory.checksums_s": checksums,
        "memory.resident_over_files": spent[few] / files,
        **{f"memory.{name}_{n}_workers_mib": each.all for (name, n), each in held.items()},
        f"memory.pss_ratio_{many}_workers": spent[many] / spent[few],
    }
    rows: list[tuple[str | int | float, ...]] = [
        (n, held["bundle", n].all, held["bundle", n].anonymous, held["tiny", n].all, spent[n]) for n in WORKERS
    ]
    columns = ("workers", "with the bundle", "of it private", "with a tiny bundle", "spent on the bundle")
    what = f"{ads:,} ads, vectors in {arguments.ad_vectors}, {files:,.0f} MiB of files"
    report.tables.append(Table(f"Proportional set size, MiB: {what}", columns, rows))
    report.notes.append(f"Opened in {opening:.2f} s, of which {checksums:.2f} s are checksums.")
    return report


def opened(folder: Path) -> tuple[float, float]:
    """Seconds to load a bundle as the service does, and to compare its checksums alone."""
    manifest, settings = read_manifest(folder), Settings(bundle=folder)
    verify_files(folder, manifest)
    times: list[tuple[float, float]] = []
    for _ in range(OPENINGS):
        started = perf_counter()
        load_bundle(folder, settings)
        loaded = perf_counter()
        verify_files(folder, manifest)
        times.append((loaded - started, perf_counter() - loaded))
    whole, checksums = zip(*times, strict=True)
    return median(whole), median(checksums)


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
