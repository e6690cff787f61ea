"""What experiments cost a request: to find the arms of a user and what they are served from, without and with them."""

import argparse
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from time import process_time
from timeit import repeat
from typing import Any

from benchmarks.bundles import ROOT, work_bundle
from benchmarks.report import Report, Table
from control.assignment import Assignment
from control.state import CONTROL, Desired
from service.loading import load_bundle
from service.plan import Plan
from service.settings import Settings

USERS = 1_000_000
SOME = [str(user) for user in range(100_003)]
"""Asked for in turn: nothing is kept for one user."""
ROUNDS = 5
CASES = {"none": 0, "1 experiment": 1, "3 layers": 3, "6 layers": 6}
"""Name -> layers with an experiment each, of all users."""
OVERRIDES: tuple[dict[str, Any], ...] = (
    {"calibration": {"slope": 0.9}},
    {"auction": {"reserve_ecpm": 0.01}},
    {"prerank_keep": 100},
    {"qscore_keep": 500},
    {"retrieval_keep": 1000},
    {"rung": "full"},
)
"""What the second arm of each layer's experiment does otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None beside the common ones."""


def run(arguments: argparse.Namespace) -> Report:
    """`assignment.<layers>.us`, processor time, and `assignment.share_error`, the largest difference between a share of
    10^6 users and the weight, in points."""
    report = Report("assignment")
    folder = work_bundle(ROOT, 10_000, "light", users=64)
    loaded = load_bundle(folder, Settings(bundle=folder))
    rows: list[tuple[str | int | float, ...]] = []
    calls = 20_000 if arguments.quick else 200_000
    for name, layers in CASES.items():
        plan = Plan(desired(loaded.id, layers), {loaded.id: loaded})
        found = repeat(partial(_next, plan, cycle(SOME)), number=calls, repeat=ROUNDS, timer=process_time)
        times = [each / calls * 1e6 for each in found]
        rows.append((name, min(times), max(times)))
        report.figures[f"assignment.{layers}.us"] = min(times)
    report.tables.append(
        Table(f"Arms of a user, {ROUNDS} times {calls:,} users", ("experiments", "us", "slowest"), rows)
    )
    report.figures["assignment.share_error"] = share_error(loaded.id, USERS // 10 if arguments.quick else USERS)
    return report


def _next(plan: Plan, users: Iterator[str]) -> None:
    plan.of(next(users), 0.0)


def desired(bundle: str, layers: int) -> Desired:
    """So many layers, each with an experiment of two arms on all users."""
    experiments = [
        {
            "name": f"e{i}",
            "layer": f"l{i}",
            "salt": f"s{i}",
            "arms": [{"name": "a0", "weight": 0.3}, {"name": "a1", "weight": 0.3, "overrides": OVERRIDES[i]}],
        }
        for i in range(layers)
    ]
    return Desired.model_validate({"version": 1, "control": {"bundle": bundle}, "experiments": experiments})


def share_error(bundle: str, users: int) -> float:
    """The largest difference of an arm's share of so many users from its weight, in points."""
    assignment = Assignment(desired(bundle, 1))
    found = Counter(assignment.of(str(user), 0.0)[0].arm for user in range(users))
    weights = {"a0": 0.3, "a1": 0.3, CONTROL: 0.4}
    return max(abs(found[arm] / users - weight) for arm, weight in weights.items()) * 100
