"""Request-grouped training against flat rows: seconds of an epoch, bytes on disk and memory.

Same impressions, same network, same number of impressions a step; only the way they are stored and batched differs
(benchmarks/common_data.py). Both compute the same weights, which tests/models/networks/test_networks.py holds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common_data import PART, simulate, write
from benchmarks.common_worker import BATCH, NETWORKS
from benchmarks.report import Report, Table

SHOWN = (5, 10, 30)
"""Impressions a user."""
FORMS = ("grouped", "flat")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--impressions N`, `--shown N ...` and `--models KIND ...`."""
    parser.add_argument("--shown", type=int, nargs="+", default=SHOWN, metavar="N", help="a user [5 10 30]")
    parser.add_argument("--models", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS), help="[all]")
    parser.add_argument("--impressions", type=int, default=120_000, metavar="N", help="of each log [120000]")


def run(arguments: argparse.Namespace) -> Report:
    """`common.MODEL.SHOWN.speedup`, and flat ÷ grouped of memory; `common.SHOWN.bytes`, grouped ÷ flat."""
    total = 6_000 if arguments.quick else arguments.impressions
    report = Report("common")
    stored: list[tuple[str | int | float, ...]] = []
    trained: list[tuple[str | int | float, ...]] = []
    for shown in arguments.shown:
        users, log = total // shown, simulate(total, shown)
        with tempfile.TemporaryDirectory() as temporary:
            folders = {form: Path(temporary) / form for form in FORMS}
            for form, folder in folders.items():
                write(log, folder, flat=form == "flat")
            grouped, flat = ((folder / PART).stat().st_size for folder in folders.values())
            report.figures[f"common.{shown}.bytes"] = grouped / flat
            stored.append((shown, grouped / 2**20, flat / 2**20, grouped / flat))
            for kind in arguments.models:
                one, two = (epoch(folder, users, log.ads.size, kind) for folder in folders.values())
                report.figures[f"common.{kind}.{shown}.speedup"] = two["seconds"] / one["seconds"]
                report.figures[f"common.{kind}.{shown}.memory"] = two["mib"] / one["mib"]
                trained.append(
                    (kind.upper(), BATCH[kind], shown, one["seconds"], two["seconds"], two["seconds"] / one["seconds"],
                     one["mib"], two["mib"])
                )  # fmt: skip
    report.tables = [
        Table(f"MiB on disk, {total:,} impressions", ("impressions a user", *FORMS, "grouped / flat"), stored),
        Table(
            "An epoch, in CPU seconds, and by how many MiB memory grew",
            ("model", "impressions a step", "impressions a user", *FORMS, "times as fast", "MiB grouped", "MiB flat"),
            trained,
        ),
    ]
    return report


def epoch(folder: Path, users: int, impressions: int, kind: str) -> dict[str, float]:
    """One epoch in a process of its own. OSError with what it said when it fails."""
    command = [sys.executable, "-m", "benchmarks.common_worker", str(folder), str(users), str(impressions), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise OSError(f"an epoch of {kind} over {folder.name} rows failed: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
