"""Fewer rows for the ids of 10^6 simulated ads: AUC against rows, by each method of models/networks/tables.py.

A GwEN is trained with a row for each ad that the training split shows. Then, for each method and ratio,

start      the trained network with its rows shared, as the step of a recipe leaves it, not trained any further
scratch    the same configuration trained from the beginning, with the same settings and seed

What ids are worth at all is said by a network without them, `none`: their fields are dropped, and nothing else.

All are measured on the test split, which chooses nothing. In the simulated world the ads' own appeal, which only their
ids tell, has a spread of APPEAL in the logit, six times `adrank marketplace`'s default: otherwise ids would be worth so
little that no method could lose anything.
"""

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Report, Table
from models.checkpoint import open_checkpoint
from models.compression.recipe import Cut, Hash, MultiHash, QuotientRemainder, RowStep
from models.compression.select_fields import without
from models.compression.share_rows import share_rows
from models.compression.subject import CompressionError, Material, Subject
from models.config import ConfigError, TrainConfig
from models.data.prepare import prepare
from models.data.prepared import PreparedData, open_prepared
from models.data.spec import DataError, read_spec
from models.evaluation import evaluate, network_scorer
from models.marketplace.files import write_marketplace
from models.marketplace.spec import Effects, MarketplaceSpec
from models.networks.layers import field_names
from models.numerics import computing
from models.train import train_one

TABLE = "ad_id"
APPEAL = 0.5
FULL = MarketplaceSpec(seed=1, ads=1_000_000, users=50_000, impressions=2_000_000, effects=Effects(appeal=APPEAL))
QUICK = MarketplaceSpec(seed=1, ads=5_000, users=2_000, impressions=60_000, effects=Effects(appeal=APPEAL))
METHODS: dict[str, type[RowStep]] = {
    "cut": Cut,
    "hash": Hash,
    "multi_hash": MultiHash,
    "quotient_remainder": QuotientRemainder,
}
LABELS = {"start": "shared after training", "scratch": "trained with shared rows"}
TRAINING = {"epochs": 1, "batch_size": 4096, "learning_rate": 0.003, "schedule": "cosine"}
MODEL = {"kind": "gwen", "embedding": 8, "embedding_std": 0.1, "hidden": [32, 16], "position_bias": True}


@dataclass(frozen=True, slots=True)
class Found:
    """One network on the test split."""

    method: str
    ratio: float
    way: str
    rows: int
    """That its table of ads stores, padding and unknown included."""
    bytes: int
    """Of that table."""
    auc: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which ratios, and where runs are kept."""
    parser.add_argument(
        "--ratios", type=float, nargs="+", default=[10, 100, 1000], metavar="R", help="ids ÷ rows (default 10 100 1000)"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep data and networks there, and go on with them")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all networks (default 1)")


def run(arguments: argparse.Namespace) -> Report:
    """`rows.full.auc`, `rows.METHOD.RATIO.WAY.auc`, `.dauc` (minus full), `.rows`, `.bytes`; `rows.none.WAY` alike.

    ValueError when something cannot be used.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="adrank-rows-") as temporary, computing(1):
            work = arguments.work or Path(temporary)
            data = _data(QUICK if arguments.quick else FULL, work)
            return report(compare(data, work, arguments.ratios, arguments.seed))
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error


def compare(data: PreparedData, work: Path, ratios: list[float], seed: int) -> list[Found]:
    """The full network first, then both ways of each method at each ratio that it can reach."""
    config = TrainConfig.model_validate(
        {"name": "rows", "dataset": "dataset.yaml", "model": MODEL, "training": TRAINING}
    )
    full = _trained(config, data, work / f"full-{seed}", seed)
    found = [_measured(full, data, "full", 1.0, "scratch")]
    for ratio in ratios:
        for method, kind in METHODS.items():
            step = kind.model_validate({"step": method, "tables": [TABLE], "ratio": ratio})
            try:
                shared = share_rows(step, full, Material(data, work, seed, full, progress=False))
            except CompressionError as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            found.append(_measured(shared, data, method, ratio, "start"))
            again = config.model_copy(update={"model": shared.model})
            trained = _trained(again, data, work / f"{method}-{ratio:g}-{seed}", seed)
            found.append(_measured(trained, data, method, ratio, "scratch"))
            said = "  ".join(f"{each.way} {each.auc:.4f}" for each in found[-2:])
            print(f"{method} {ratio:g}: {said}, full {found[0].auc:.4f}", file=sys.stderr)
    fields = tuple(name for name in field_names(data.schema) if name.endswith(f".{TABLE}"))
    dropped = full.changed(dropped_fields=fields)
    silent = full.rebuilt(dropped, without(full.network, dropped, set(fields)))
    found.append(_measured(silent, data, "none", math.inf, "start"))
    trained = _trained(config.model_copy(update={"model": dropped}), data, work / f"none-{seed}", seed)
    return [*found, _measured(trained, data, "none", math.inf, "scratch")]


def report(found: list[Found]) -> Report:
    """Figures, a table, and the curves."""
    result, full = Report("rows"), found[0]
    result.figures |= {"rows.full.auc": full.auc, "rows.full.rows": full.rows, "rows.full.bytes": full.bytes}
    rows: list[tuple[str | int | float, ...]] = [
        ("a row each", "", full.rows, full.bytes, f"{full.auc:.4f}", "", LABELS[full.way])
    ]
    reached = sorted({each.ratio for each in found if math.isfinite(each.ratio)})
    for each in found[1:]:
        ratio = "" if each.method == "none" else f"{each.ratio:g}"
        change, key = each.auc - full.auc, ".".join(filter(None, ("rows", each.method, ratio, each.way)))
        result.figures |= {f"{key}.auc": each.auc, f"{key}.dauc": change}
        result.figures |= {f"{key}.rows": each.rows, f"{key}.bytes": each.bytes}
        rows.append(
            (each.method, ratio, each.rows, each.bytes, f"{each.auc:.4f}", f"{change:+.4f}",
             LABELS[each.way])
        )  # fmt: skip
        if not ratio:
            result.series[f"rows.{each.way}.without ids"] = [(one, each.auc) for one in reached]
            continue
        result.series.setdefault(f"rows.{each.way}.{each.method}", [(1.0, full.auc)]).append((each.ratio, each.auc))
    heads = ("method", "ids ÷ rows", "rows", "bytes", "AUC", "change", "way")
    result.tables.append(Table("Simulated ads: fewer rows for their ids", heads, rows))
    return result


def _data(spec: MarketplaceSpec, work: Path) -> PreparedData:
    """The marketplace, made and prepared where it is not there yet."""
    folder = work / "marketplace"
    if not (folder / "dataset.yaml").exists():
        write_marketplace(spec, folder, lambda _: None)
    if (work / "data/schema.json").exists():
        return open_prepared(work / "data")
    return prepare(read_spec(folder / "dataset.yaml"), folder, work / "data", progress=False)


def _trained(config: TrainConfig, data: PreparedData, folder: Path, seed: int) -> Subject:
    train_one(config, data, folder, seed, progress=False)
    checkpoint = open_checkpoint(folder)
    return Subject(checkpoint.config, checkpoint.network())


def _measured(subject: Subject, data: PreparedData, method: str, ratio: float, way: str) -> Found:
    arena = subject.network.arena
    table = arena.apart(TABLE)
    whole = arena.fields[TABLE].size if TABLE in arena.fields else 0
    rows = whole if table is None else len(table.weight)
    stored = rows * arena.dimension * 4 if table is None else table.stored_bytes()
    auc = evaluate(network_scorer(subject.network), data, "test")["auc"]
    return Found(method, ratio, way, rows, stored, auc)
