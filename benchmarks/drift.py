"""A world whose tastes turn: a bundle that `adrank loop` renews turn by turn, against the same bundle left alone.

Half of the simulated users are in an arm that keeps the first bundle; the others get the control, which the loop
renews: it learns from what both were shown and clicked. After each turn tastes turn once more, and the same visits are
asked for with each arm forced: what yesterday's clicks made of the bundle is worth what it shows today. Nobody clicks
in these visits.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_loop import K, World, Worth, command, environment, served, true_worth
from benchmarks.closed_loop_world import GOOD, make_bundles
from benchmarks.http.process import ended_cleanly
from benchmarks.report import Report, Table
from control.changes import Start
from control.state import Arm, Experiment, Overrides
from export.renewal import carried
from models.checkpoint import open_checkpoint
from models.data.prepared import open_prepared
from models.evaluation import evaluate, network_scorer
from models.marketplace.spec import Effects, MarketplaceSpec
from models.marketplace.visitors import Visitors

EFFECTS = Effects(brand=0.7, category=0.6, age_by_category=0.4, gender_by_category=0.3, scene_by_category=0.3)
"""Tastes that matter: with the usual ones histories, which do not drift, tell most of what there is to tell."""
SPEC = MarketplaceSpec(seed=7, ads=1_000, users=5_000, impressions=150_000, days=10, effects=EFFECTS)
QUICK = SPEC.model_copy(update={"ads": 400, "users": 1_500, "impressions": 40_000})
DRIFT = 0.2
"""A turn: after five turns nothing is left of the log's tastes."""
TURNS, VISITS, TRUTH = (4, 2), (2_000, 500), (400, 100)
"""Of each, and in the small version."""
LEFT = Experiment(name="drift", salt="drift-1", arms=(Arm(name="left", weight=0.5, overrides=Overrides(bundle=GOOD)),))


@dataclass(frozen=True, slots=True)
class Turned:
    """One turn, and the day after it."""

    found: dict[str, Any]
    """Of `adrank loop`."""
    left_auc: float
    """Of the first fine-ranker, on the impressions on which the loop compared its two."""
    left: Worth
    renewed: Worth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--turns N`, `--drift X` and `--visits N`."""
    parser.add_argument("--turns", type=int, metavar="N", help=f"of the loop (default {TURNS[0]})")
    parser.add_argument("--drift", type=float, default=DRIFT, metavar="X", help="of tastes, a turn [%(default)g]")
    parser.add_argument("--visits", type=int, metavar="N", help=f"of a turn (default {VISITS[0]:,})")


def run(arguments: argparse.Namespace) -> Report:
    """`drift.turnN.NAME` and `drift.NAME` of the last turn: `ctr_lift`, `ecpm_lift` of the renewed bundle against the
    one left alone, and `auc.left`, `auc.served`, `auc.renewed`. FileNotFoundError without a Redis server."""
    quick = bool(arguments.quick)
    turns, visits = arguments.turns or TURNS[quick], arguments.visits or VISITS[quick]
    with ended_cleanly(), tempfile.TemporaryDirectory(prefix="adrank-drift-") as temporary:
        folder = Path(temporary)
        spec = QUICK if quick else SPEC
        bundles = make_bundles(spec, folder, (GOOD,))
        with served(bundles / GOOD, folder, collect=False) as world:
            world.change(Start(experiment=LEFT, who="bench", why="left alone"))
            found = [
                turned(
                    world,
                    folder,
                    Visitors(spec, 2, arguments.drift * (number + 1)),
                    number,
                    arguments.drift,
                    visits,
                    TRUTH[quick],
                )
                for number in range(1, turns + 1)
            ]
    return report(found, arguments.drift)


def turned(
    world: World, folder: Path, tomorrow: Visitors, number: int, drift: float, visits: int, asked: int
) -> Turned:
    """One turn of the loop, and what both bundles are worth afterwards. OSError when the loop fails; a turn that it
    refused is none."""
    work, figures = folder / "loop", folder / f"turn-{number}.json"
    words = command("loop", "--url", world.url, "--redis", world.redis, "--bundles", str(folder / "bundles"))
    words += ["--market", str(folder / "market"), "--work", str(work), "--visits", str(visits), "--k", str(K)]
    words += ["--finerank", str(folder / GOOD), "--prerank", str(folder / "dqm"), "--drift", str(drift), "--quiet"]
    words += ["--json", str(figures), "--threads", "1"]
    said = subprocess.run(words, env=environment(world.key), capture_output=True, text=True, check=False)
    print(said.stdout, file=sys.stderr)
    if not figures.exists():
        raise OSError(f"adrank loop ended with code {said.returncode}: {said.stderr[-400:]}")
    place = f"loop.turn{number}."
    found = {name.removeprefix(place): value for name, value in json.loads(figures.read_text()).items()}
    data = open_prepared(Path(found["data"]))
    auc = evaluate(network_scorer(carried(open_checkpoint(folder / GOOD), data)), data, "test")["auc"]
    tomorrow.histories[...] = np.load(work / f"turn-{number}" / "histories.npy")
    worth = true_worth(world, tomorrow, asked, LEFT)
    return Turned(found, auc, worth["left"], worth["control"])


def report(turns: Sequence[Turned], drift: float) -> Report:
    """The turns as a table, figures and curves."""
    result = Report("drift")
    rows: list[tuple[str | int | float, ...]] = []
    for number, each in enumerate(turns, start=1):
        own = {
            "served": float(bool(each.found["is_served"])),
            "auc.left": each.left_auc,
            "ctr_lift": each.renewed.ctr / each.left.ctr - 1,
            "ecpm_lift": each.renewed.ecpm / each.left.ecpm - 1,
        }
        for name, place in (("served", "before"), ("renewed", "after")):  # a turn of too few users has none
            if (auc := each.found.get(f"judge.finerank.auc.{place}")) is not None:
                own[f"auc.{name}"] = auc
        result.figures |= {f"drift.turn{number}.{name}": value for name, value in own.items()}
        result.figures |= {f"drift.{name}": value for name, value in own.items()}  # the last turn's stay
        rows.append(
            (
                number,
                *(f"{own[name]:.4f}" if name in own else "-" for name in ("auc.left", "auc.served", "auc.renewed")),
                each.found["gate"],
                f"{each.left.ctr:.2%}",
                f"{each.renewed.ctr:.2%}",
                f"{own['ctr_lift']:+.1%}",
                f"{own['ecpm_lift']:+.1%}",
            )
        )
    for name, label in (("ctr_lift", "true CTR"), ("ecpm_lift", "true eCPM")):
        points = [(float(i), result.figures[f"drift.turn{i}.{name}"]) for i in range(1, len(turns) + 1)]
        result.series[f"drift.lift.{label}"] = points
    heads = ("turn", "AUC left alone", "served", "renewed", "gate", "CTR left alone", "renewed", "CTR", "eCPM")
    title = f"The turn's newest tenth, and the day after it; tastes drift by {drift:g} a turn"
    result.tables.append(Table(title, heads, rows))
    return result
