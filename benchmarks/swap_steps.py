"""What a serving process does to take up a bundle that was judged, step by step: between two steps it gives way."""

from itertools import pairwise
from pathlib import Path
from time import thread_time

import numpy as np

from benchmarks.report import Report, Table
from service.loading import load_bundle
from service.settings import Settings

ROUNDS = 5


def tell_steps(report: Report, bundles: list[Path]) -> None:
    """`swap.load_ms`, all of it, and `swap.longest_step_ms`, in milliseconds of a processor, medians of ROUNDS; and a
    table of the steps. The bundles are opened in turn, as swaps do."""
    names: list[str] = []
    rounds = []
    for turn in range(ROUNDS + 1):
        names, found = steps(bundles[turn % len(bundles)])
        rounds.append(found)
    ms = np.median(rounds[1:], axis=0)  # the first one loads libraries
    kinds = list(dict.fromkeys(names))
    rows: list[tuple[str | int | float, ...]] = []
    for kind in kinds:
        mine = ms[[name == kind for name in names]]
        rows.append((kind, len(mine), float(mine.sum()), float(mine.max())))
    report.figures |= {"swap.load_ms": float(ms.sum()), "swap.longest_step_ms": float(ms.max())}
    report.tables.append(
        Table("Taking up a bundle, milliseconds of a processor", ("step", "number", "all", "longest"), rows)
    )


def steps(folder: Path) -> tuple[list[str], list[float]]:
    """Names of the steps of one loading, and what each took."""
    at: list[float] = []
    loaded = load_bundle(folder, Settings(bundle=folder), verify=False, pause=lambda: at.append(thread_time()))
    at.append(thread_time())
    sessions, golden = 1 + len(loaded.ladder.rungs), loaded.proof.requests
    names = ["opening", *["session"] * sessions, *["golden row"] * golden]
    names += ["warm-up"] * (len(at) - 1 - len(names))
    return names, [(end - begin) * 1e3 for begin, end in pairwise(at)]
