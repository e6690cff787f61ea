"""`adrank bench`: measure, print tables, write figures."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from benchmarks.report import Report, where

BENCHES = {
    "din": ("benchmarks.din", "the fine-ranker: the usual export, ours, and the floor"),
    "cascade": ("benchmarks.cascade", "the whole funnel over 10^6 and 10^7 ads, in process"),
    "features": ("benchmarks.features", "what it costs to know a user, with and without Redis"),
    "memory": ("benchmarks.memory", "memory of 4 worker processes against that of one"),
    "daily": ("benchmarks.daily", "training day by day, from scratch and continued: AUC, GAUC and time"),
    "rocket": ("benchmarks.rocket", "Rocket Launching: light net, booster and ablations, with paired intervals"),
    "cold-ads": ("benchmarks.cold_ads", "what images tell of ads that training showed never or seldom"),
    "ladder": ("benchmarks.ladder", "overload with and without a ladder of fine-rankers"),
    "assignment": ("benchmarks.assignment", "what it costs to find the arms of a user"),
    "outcomes": ("benchmarks.outcomes", "what it costs to log answers, and how fast they are collected"),
    "gate": ("benchmarks.gate", "what the gate says of bundles against another one, and how long it takes"),
    "swap": ("benchmarks.swap", "another bundle under load: what swaps cost requests and memory"),
    "stop": ("benchmarks.stop", "the service told to end under load: requests that get no answer"),
    "rows": ("benchmarks.rows", "AUC with fewer embedding rows for 10^6 simulated ads, by each method"),
    "pictures": ("benchmarks.pictures", "nothing, but draw the curves that others saved"),
    "eligibility": ("benchmarks.eligibility", "targeting, filters and flags of ads over a large catalogue"),
    "diamond": ("benchmarks.diamond", "how MLR cuts a space that LR cannot, and draw it"),
    "common": ("benchmarks.common_features", "training on request-grouped data against flat rows"),
    "compress": ("benchmarks.compress", "DIN at paper size against what a recipe makes of it"),
    "recipes": ("benchmarks.recipes", "what recipes of compression do to checkpoints of several seeds"),
    "values": ("benchmarks.values", "tables and ad vectors in fp16, int8 and int4: time, and what is lost"),
    "train": ("benchmarks.training.bench", "DIN's training throughput, side by side with other libraries' DIN"),
    "compare": ("benchmarks.compare", "several configurations against one, for each value of a context field too"),
    "drift": ("benchmarks.drift", "a world whose tastes turn: the loop against a bundle left alone"),
    "aa": ("benchmarks.aa", "experiments without a difference: how often one is seen all the same"),
    "closed-loop": ("benchmarks.closed_loop", "experiments on simulated users, verdicts held against the truth"),
    "load-proofs": ("benchmarks.load_proofs", "whether load tests judge rightly, and what wrk sees at the same rate"),
    "capacity": ("benchmarks.capacity", "whether the simulated knee is the measured one, and what one Redis takes"),
    "http": ("benchmarks.http.bench", "the service over HTTP, side by side with other servers"),
}
"""name -> module with `add_arguments(parser)` and `run(arguments) -> Report`, and what it measures."""
IN_ALL = ("din", "cascade", "features", "memory")
"""What `adrank bench all` runs: everything but the peers, which need installations of their own."""


class Bench(Protocol):
    """A module of BENCHES."""

    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Report]


def main(argv: list[str]) -> int:
    """Run one benchmark, or all; 0 when it was measured, 2 when something it needs is missing."""
    arguments = parser(argv[:1]).parse_args(argv)
    place = where()
    try:
        report = arguments.run(arguments)
    except (OSError, ValueError) as error:
        print(f"adrank bench {arguments.bench}: {error}", file=sys.stderr)
        return 2
    print(report.text(place))
    if arguments.json is not None:
        report.save(arguments.json, place)
    return 0


def parser(names: Sequence[str] = tuple(BENCHES)) -> argparse.ArgumentParser:
    """The command's arguments, with those of the named benchmarks; the libraries of others need not be there."""
    result = argparse.ArgumentParser(prog="adrank bench", description=__doc__)
    actions = result.add_subparsers(dest="bench", required=True, metavar="BENCH")
    for name, (module, what) in BENCHES.items():
        action = actions.add_parser(name, help=what, description=f"Measure {what}.")
        _common(action)
        if name in names:
            bench = _load(module)
            bench.add_arguments(action)
            action.set_defaults(run=bench.run)
    every = actions.add_parser("all", help="all but the peers", description=f"Measure {', '.join(IN_ALL)}.")
    every.set_defaults(run=_all)
    _common(every)
    return result


def _common(action: argparse.ArgumentParser) -> None:
    action.add_argument("--quick", action="store_true", help="a small version: fewer rounds, smaller catalogues")
    action.add_argument("--json", type=Path, metavar="FILE", help="write figures, tables and curves there")


def _all(arguments: argparse.Namespace) -> Report:
    whole = Report("all")
    for name in IN_ALL:
        bench = _load(BENCHES[name][0])
        own = argparse.ArgumentParser()
        bench.add_arguments(own)
        chosen = own.parse_args([])
        chosen.quick = arguments.quick
        print(f"bench {name} ...", file=sys.stderr)
        whole.add(bench.run(chosen))
    return whole


def _load(module: str) -> Bench:
    return cast(Bench, importlib.import_module(module))
