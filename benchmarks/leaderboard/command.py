"""`adrank leaderboard`: train every model of a data set, compare all with DIN, time them, write the table."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.leaderboard.entries import find_entries
from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.page import TITLES, require_marks, section, table, write_section
from benchmarks.leaderboard.pictures import draw
from benchmarks.leaderboard.runs import prepare_all, run_all, trainable
from benchmarks.leaderboard.served import milliseconds
from benchmarks.report import where
from models.checkpoint import write_json
from models.config import ConfigError
from models.data.spec import DataError
from models.intervals import REPLICATES
from models.numerics import at_least, computing
from models.options import file_to_write, folder_to_write, seed
from models.training import TrainingError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank leaderboard",
        description="Train every model of a data set that is not trained yet, and compare all of them with DIN on the "
        "test split: AUC, GAUC, log loss and calibration, paired 95 % intervals, size and time. An interrupted run "
        "continues when the same command is given again.",
    )
    p.add_argument("--data", type=Path, metavar="DIR", required=True, help="folder with the raw files")
    p.add_argument("--dataset", choices=TITLES, default="kuairand", help="whose models (default kuairand)")
    p.add_argument(
        "--configs", metavar="GLOB", nargs="+", help="configurations (default models/configs/DATASET-*.yaml)"
    )
    p.add_argument("--seeds", type=seed, metavar="N", nargs="+", default=[1, 2, 3], help="default 1 2 3")
    p.add_argument("--reference", metavar="MODEL", default="din", help="what differences are against (default din)")
    p.add_argument(
        "--out",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/checkpoints"),
        help="where checkpoints are looked for and written (default artifacts/checkpoints)",
    )
    p.add_argument(
        "--prepared",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="where prepared data are kept (default artifacts/data)",
    )
    p.add_argument(
        "--replicates",
        type=at_least(1),
        metavar="N",
        default=REPLICATES,
        help=f"draws of users an interval is made of (default {REPLICATES})",
    )
    p.add_argument(
        "--rounds", type=at_least(1), metavar="N", default=20, help="of timing, networks taking turns (default 20)"
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads in training (default 2)")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the figures as flat JSON")
    p.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="write the table into this page, e.g. docs/models.md, and pictures into the folder pictures beside it",
    )
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 130 when interrupted."""
    options = parser().parse_args(argv)
    if len(set(options.seeds)) < len(options.seeds):
        print(f"adrank leaderboard: --seeds names a seed twice: {options.seeds}", file=sys.stderr)
        return 2
    place = where() | {"threads in training": str(options.threads)}
    try:
        with computing(options.threads):
            found = measure(options)
        if options.json:
            write_json(options.json, found)
        if options.page:
            lines = section(found, options.dataset, options.reference, options.replicates, place)
            write_section(options.page, options.dataset, lines)
            draw(found, options.dataset, options.reference, options.page.parent / "pictures")
    except (ConfigError, DataError, TrainingError, ValueError) as error:
        print(f"adrank leaderboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank leaderboard: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


def measure(options: argparse.Namespace) -> dict[str, float]:
    """All figures; prints the table."""
    if options.page:
        require_marks(options.page)  # now, not after hours of training
    entries = find_entries(options.dataset, options.configs, options.reference)
    entries = trainable(entries, options.data, options.reference, _say)
    data = prepare_all(entries, options.data, options.prepared, progress=not options.quiet)
    runs = run_all(entries, data, options.seeds, options.out, _say, progress=not options.quiet)
    with tempfile.TemporaryDirectory() as temporary:
        times = milliseconds(runs, Path(temporary), options.rounds, _say)
    _say(f"intervals of {options.replicates} draws of users")
    found = figures(options.dataset, runs, options.reference, options.replicates)
    found |= {f"{options.dataset}.{model}.ms_500": ms for model, ms in times.items()}
    print("\n".join(table(found, options.dataset)))
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
