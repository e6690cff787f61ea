"""`adrank loop`: serve, log, go on training, compress, export, sign, publish, gate, swap: N turns by one command.

A turn is export/turn.py; here is which turn is next, what it goes on from, and the table of all of them.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bundle.errors import BundleError
from bundle.folder import open_bundle
from control.client import AdminError
from control.command_line import admin_of, asking, with_redis
from export.deviation import PrecisionError
from export.judgement import Limits, shown
from export.parity import ParityError
from export.renewal import Stock
from export.traffic import TrafficError, Visiting
from export.turn import Found, Plan, Turn, control_of, seconds_of
from models.calibration import CalibrationError
from models.checkpoint import open_checkpoint, write_json
from models.compression.recipe import read_recipe
from models.config import ConfigError
from models.data.command import terminable
from models.data.spec import DataError, complaints
from models.intervals import Interval
from models.marketplace.simulate import amount
from models.marketplace.spec import MarketplaceSpec
from models.numerics import at_least, computing
from models.options import file_to_write, folder_to_write
from models.options import seed as seed_option
from models.training import TrainingError

RECIPE = Path(__file__).parent.parent / "models/configs/recipes/int8.yaml"
LIMITS = Limits()
HEADS = (
    "turn",
    "served",
    "visits",
    "true CTR",
    "true eCPM",
    "rows",
    "AUC before",
    "after",
    "difference",
    "traffic s",
    "train s",
    "export s",
    "swap s",
    "next bundle",
    "gate",
)


def main(argv: list[str]) -> int:
    """0 when all turns are served, 1 when one was refused, could not be made, or the service failed; 2 for bad input,
    130 when interrupted."""
    options = parser().parse_args(argv)
    try:
        if options.redis is None:
            raise ConfigError("no Redis given: use --redis or ADRANK_REDIS_URL")
        with terminable(), computing(options.threads):
            return run(options)
    except ValidationError as error:
        print(f"adrank loop: {complaints(error)}", file=sys.stderr)
        return 2
    except (BundleError, ConfigError, DataError) as error:
        print(f"adrank loop: {error}", file=sys.stderr)
        return 2
    except (AdminError, TrafficError, TrainingError, CalibrationError, ParityError, PrecisionError) as error:
        print(f"adrank loop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("adrank loop: interrupted; the same command takes the turn up again", file=sys.stderr)
        return 130


def run(options: argparse.Namespace) -> int:
    """Take the turns; print the table."""
    options.who = options.who or "adrank loop"
    spec = None
    if options.market is not None:
        spec = MarketplaceSpec.model_validate_json((options.market / "marketplace.json").read_bytes())
    dataset = options.dataset or (options.market and options.market / "dataset.yaml")
    if dataset is None:
        raise ConfigError("--wait needs --dataset: the dataset.yaml that the served bundle was trained on")
    plan = Plan(
        url=options.url.rstrip("/"),
        redis=options.redis,
        prefix=options.prefix,
        dataset=dataset,
        bundles=options.bundles,
        data=options.work / "data",
        recipe=read_recipe(options.recipe),
        limits=Limits(auc_drop=options.auc_drop, logloss_rise=options.logloss_rise, min_users=options.min_users),
        key=options.sign_key,
        minutes=options.wait or 0.0,
        seed=options.seed,
        timeout_s=options.timeout,
        progress=not options.quiet,
    )
    results: list[tuple[int, Found]] = []
    with admin_of(options) as admin:
        first = next_turn(options.work)
        for number in range(first, first + options.turns):
            served = control_of(admin).bundle
            assert served is not None, "a state has a bundle"
            stock = stock_of(options, served, number)
            turn = Turn(options.work / f"turn-{number}", plan)
            visiting = None if spec is None else visiting_of(options, spec, number)
            name = f"{options.name or re.sub(r'-t[0-9]+$', '', served)}-t{number}"
            results.append((number, turn.take(stock, name, visiting, admin)))
            print(line(*results[-1]) if number > first else f"{heads()}\n{line(*results[-1])}", flush=True)
            if not results[-1][1]["is_served"]:
                break
    if options.json is not None:
        write_json(options.json, figures(results))
    if not results[-1][1]["is_served"]:
        print(f"adrank loop: {name} was refused, {served} is served on", file=sys.stderr)
        return 1
    return 0


def next_turn(work: Path) -> int:
    """The first turn that is not over."""
    number = 1
    while (work / f"turn-{number}" / "serve.json").exists():
        number += 1
    return number


def stock_of(options: argparse.Namespace, served: str, number: int) -> Stock:
    """What the turn goes on from: the checkpoints of the turn that made the served bundle, else those that were given.
    A turn that was cut off after its bundle was served still has the one from which it began. ConfigError when they do
    not belong to what is served."""
    if (begun := options.work / f"turn-{number}" / "traffic.json").exists():
        served = str(Turn.read(begun)["served"])
    bundle = open_bundle(options.bundles / served)
    folders = {"finerank": options.finerank, "prerank": options.prerank}
    for earlier in range(number - 1, 0, -1):
        folder = options.work / f"turn-{earlier}"
        made = folder / "export.json"
        if made.exists() and Turn.read(made)["bundle"] == served:
            folders = {name: folder / name for name in folders}
            break
    if missing := [f"--{name}" for name, folder in folders.items() if folder is None]:
        raise ConfigError(f"{served} is served, which no turn in {options.work} made: give {' and '.join(missing)}")
    stock = Stock(open_checkpoint(folders["finerank"]), open_checkpoint(folders["prerank"]), bundle)
    stock.check()
    return stock


def visiting_of(options: argparse.Namespace, spec: MarketplaceSpec, number: int) -> Visiting:
    """The visits of a turn: users go on from what they did in the last one."""
    before = options.work / f"turn-{number - 1}" / "histories.npy"
    return Visiting(
        spec=spec,
        visits=options.visits,
        k=options.k,
        seed=options.seed * 1000 + number,
        before=before if before.exists() else None,
        drift=options.drift * number,
        after=options.work / f"turn-{number}" / "histories.npy",
    )


def figures(results: list[tuple[int, Found]]) -> dict[str, Any]:
    """loop.turnN.NAME of every turn."""
    return {f"loop.turn{number}.{name}": value for number, found in results for name, value in found.items()}


def heads() -> str:
    """The table's head."""
    return "  ".join(HEADS)


def line(number: int, found: Mapping[str, Any]) -> str:
    """One turn."""
    true_ctr = found.get("simulate.all.true_ctr")
    cells = (
        f"{number}",
        found["served"],
        f"{found.get('simulate.all.requests', 0):,.0f}" if true_ctr is not None else "-",
        f"{true_ctr:.3%}" if true_ctr is not None else "-",
        f"{found['simulate.all.true_ecpm']:,.0f}" if true_ctr is not None else "-",
        f"{found['rows']:,}",
        *compared(found),
        f"{seconds_of(found, 'traffic'):.0f}",
        f"{seconds_of(found, 'prepare', 'train', 'compress'):.0f}",
        f"{seconds_of(found, 'export', 'publish'):.0f}",
        f"{seconds_of(found, 'serve'):.1f}",
        found.get("bundle", "-"),
        found["gate"],
    )
    return "  ".join(str(cell).rjust(len(head)) for cell, head in zip(cells, HEADS, strict=True))


def compared(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """AUC of the served fine-ranker, of the new one, and how far they are apart; dashes with too few users."""
    place = "judge.finerank.auc"
    if place not in found:
        return "-", "-", "-"
    apart = Interval(found[place], found[f"{place}.low"], found[f"{place}.high"])
    return f"{found[f'{place}.before']:.4f}", f"{found[f'{place}.after']:.4f}", shown(apart)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank loop",
        description="Take turns of serve, log, train on, compress, export, publish, gate and swap against a running "
        "service whose bundle store is a folder. Networks go on from the checkpoints of the served bundle. An "
        "interrupted turn is taken up by the same command; nothing of a turn that is not over is served.",
    )
    asking(p)
    p.add_argument("--who", help="for the audit log [adrank loop]")
    with_redis(p)
    p.add_argument("--bundles", type=Path, required=True, metavar="DIR", help="the service's bundle store, a folder")
    p.add_argument(
        "--work", type=folder_to_write, default=Path("artifacts/loop"), metavar="DIR", help="of the turns [%(default)s]"
    )
    p.add_argument("--finerank", type=Path, metavar="DIR", help="checkpoint of the served fine-ranker; first turn only")
    p.add_argument("--prerank", type=Path, metavar="DIR", help="checkpoint of the served pre-ranker; first turn only")
    p.add_argument("--turns", type=at_least(1), default=1, metavar="N", help="turns to take now [%(default)s]")
    traffic = p.add_mutually_exclusive_group(required=True)
    traffic.add_argument("--market", type=Path, metavar="DIR", help="simulated users of this marketplace ask")
    traffic.add_argument("--wait", type=float, metavar="MINUTES", help="others ask: how long a turn waits for them")
    p.add_argument("--visits", type=at_least(1), default=5000, metavar="N", help="with --market [%(default)s]")
    p.add_argument("--k", type=at_least(1), default=10, metavar="N", help="ads shown in a visit [%(default)s]")
    p.add_argument(
        "--drift", type=amount, default=0.0, metavar="X", help="with --market: how far tastes turn a turn [%(default)g]"
    )
    p.add_argument("--dataset", type=Path, metavar="YAML", help="that the served bundle was trained on [of --market]")
    p.add_argument("--recipe", type=Path, default=RECIPE, metavar="FILE.yaml", help="of compression [int8 rows]")
    p.add_argument(
        "--auc-drop",
        type=amount,
        default=LIMITS.auc_drop,
        metavar="X",
        help="refuse networks whose AUC may be lower by more than that of what is served [%(default)g]",
    )
    p.add_argument(
        "--logloss-rise",
        type=amount,
        default=LIMITS.logloss_rise,
        metavar="X",
        help="the same of a log loss that may be higher, in nats [%(default)g]",
    )
    p.add_argument(
        "--min-users",
        type=at_least(1),
        default=LIMITS.min_users,
        metavar="N",
        help="refuse where fewer users than that both clicked and did not [%(default)s]",
    )
    p.add_argument("--sign-key", type=Path, metavar="FILE", help="private key of `adrank bundle keygen` [unsigned]")
    p.add_argument("--name", help="of the bundles, NAME-tN [that of the served one]")
    p.add_argument("--seed", type=seed_option, default=1, metavar="N", help="of users and training [%(default)s]")
    p.add_argument("--threads", type=at_least(1), default=2, metavar="N", help="torch threads [%(default)s]")
    p.add_argument("--timeout", type=float, default=300.0, metavar="S", help="longest wait for a swap [%(default)g]")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write all figures")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p
