"""DIN at paper size against what a recipe makes of it: bytes, multiply-adds, quality over several seeds, time.

The originals are trained with `adrank train`'s loop unless they are there already, and compressed with the recipe named
like the data, both from models/configs. Quality: the mean over seeds of compressed minus original on the same
impressions of the test split, with a paired interval over draws of users. Time: p50 for 500 candidates of the original
as it is usually exported (benchmarks/tiled.py), of the original as we serve it, and of the compressed network, taking
turns. Beside it the control: the original fine-tuned alike, without any compression.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Table
from benchmarks.tiled import export_tiled, tiled
from benchmarks.timing import interleaved, p50
from export.certify import CANDIDATES
from export.parity import Feeds, common_of, feeds_of, golden_requests
from export.request_graph import serving_graph
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.checkpoint import Checkpoint, open_checkpoint
from models.compression.pipeline import Compressed, compress
from models.compression.recipe import FineTune, Recipe, read_recipe
from models.config import ConfigError, read_config, read_dataset
from models.data.prepare import ensure_prepared
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.evaluation import network_scorer, score_split
from models.intervals import METRICS, bootstrap
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.networks.din import Din
from models.numerics import computing
from models.train import train_one
from models.training import TrainingError
from service.scorer import make_session

CONFIGS = Path(__file__).parent.parent / "models/configs"
MARKETPLACE = MarketplaceSpec(seed=1, ads=5_000, users=5_000, impressions=400_000, targeted=0.2)
QUICK = MARKETPLACE.model_copy(update={"ads": 1_000, "users": 1_000, "impressions": 60_000})
REQUESTS = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Data, and where runs are kept."""
    parser.add_argument(
        "--kuairand", type=Path, metavar="DIR", help="folder with KuaiRand's raw files (without: simulated data only)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default 1 2 3")
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/compress"), metavar="DIR", help="kept runs [artifacts/compress]"
    )


def run(arguments: argparse.Namespace) -> Report:
    """`DATASET.bytes_ratio`, `.macs_ratio`, `.dgauc`, `.dgauc_low`, `.p50_ratio` and so on; ValueError for what cannot
    be used. `--quick`: one seed of small simulated data."""
    report = Report("compress")
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    try:
        with computing(1):
            out: Path = arguments.out / ("quick" if arguments.quick else "whole")
            raw = out / "marketplace"
            if not (raw / "marketplace.json").exists():
                write_marketplace(QUICK if arguments.quick else MARKETPLACE, raw, lambda _: None)
            _measure(report, "marketplace", raw, out, seeds)
            if arguments.kuairand is not None and not arguments.quick:
                _measure(report, "kuairand", arguments.kuairand, out, seeds)
    except (ConfigError, DataError, TrainingError) as error:
        raise ValueError(str(error)) from error
    return report


@dataclass(frozen=True, slots=True)
class Pair:
    """One seed's original, what a recipe made of it, and the control."""

    original: Checkpoint
    compressed: Compressed
    control: Compressed | None


def _measure(report: Report, dataset: str, raw: Path, out: Path, seeds: list[int]) -> None:
    """One data set."""
    path = CONFIGS / f"{dataset}-din-paper.yaml"
    config, recipe = read_config(path), read_recipe(CONFIGS / f"recipes/{dataset}-din.yaml")
    data = ensure_prepared(read_dataset(path, config, raw), raw, out / "data", progress=False)
    tuning = tuple(step for step in recipe.steps if isinstance(step, FineTune))
    control = Recipe(name="control", steps=tuning) if tuning else None
    pairs = []
    for seed in seeds:
        folder = out / f"{config.name}-seed{seed}"
        train_one(config, data, folder, seed, progress=False)
        original = open_checkpoint(folder)
        found = compress(original, recipe, data, out / f"{folder.name}-{recipe.name}", seed, progress=False)
        alike = None
        if control is not None:
            alike = compress(original, control, data, out / f"{folder.name}-control", seed, progress=False)
        pairs.append(Pair(original, found, alike))
    first, last = (pairs[0].compressed.record.steps[i].figures for i in (0, -1))
    figures = {
        "bytes_ratio": first["bytes"] / last["bytes"],
        "table_bytes_ratio": first["table_bytes"] / last["table_bytes"],
        "macs_ratio": first["multiply_adds"] / last["multiply_adds"],
    }
    figures |= _quality(pairs, data) | _times(pairs[0], data)
    report.figures |= {f"{dataset}.{name}": value for name, value in figures.items()}
    report.tables += [_steps(dataset, pairs[0]), _outcome(dataset, figures, len(seeds))]


def _quality(pairs: list[Pair], data: PreparedData) -> dict[str, float]:
    """Compressed minus original, and control minus original, mean over seeds."""
    split = [each.compressed.original for each in pairs], [each.compressed.subject for each in pairs]
    controls = [each.control.subject for each in pairs if each.control is not None]
    scored = [score_split(network_scorer(each.network), data, "test") for each in (*split[0], *split[1], *controls)]
    drawn, n = bootstrap(scored[0].labels, scored[0].users, [each.scores for each in scored]), len(pairs)
    originals, compressed = range(n), range(n, 2 * n)
    found = {f"original.{metric}": float(drawn.measured[metric][:n].mean()) for metric in METRICS}
    sides = {"": compressed} | ({"control.": range(2 * n, 3 * n)} if controls else {})
    for prefix, ours in sides.items():
        for metric in METRICS:
            each = drawn.difference(metric, ours, originals)
            found |= {
                f"{prefix}d{metric}": each.value,
                f"{prefix}d{metric}_low": each.low,
                f"{prefix}d{metric}_high": each.high,
            }
    return found


def _times(pair: Pair, data: PreparedData) -> dict[str, float]:
    """p50 of three graphs for the same requests."""
    original, subject = pair.compressed.original.network, pair.compressed.subject.network
    assert isinstance(original, Din)
    schema = original.schema
    inputs = common_inputs(schema) | candidate_inputs(schema)
    requests = [
        feeds_of(common_of(batch, data), ads, data)
        for batch, ads in golden_requests(data, "test", REQUESTS, CANDIDATES, seed=0)
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        specs = {
            "tiled": export_tiled(original, folder / "tiled.onnx"),
            "original": export_graph(serving_graph(original), inputs, ["logits"], folder / "original.onnx"),
            "compressed": export_graph(serving_graph(subject), inputs, ["logits"], folder / "compressed.onnx"),
        }
        work = {}
        for name, spec in specs.items():
            feeds = [tiled(each) if name == "tiled" else each for each in requests]
            named = [{each.name: one[each.name] for each in spec.inputs} for one in feeds]
            work[name] = partial(_all, make_session(folder / spec.file, "cpu", 1).run, named)
        times = interleaved(work, 20)
    return {f"{name}_ms": p50(each) / REQUESTS for name, each in times.items()} | {
        "p50_ratio": float(np.median(times["tiled"] / times["compressed"])),
        "p50_ratio_served": float(np.median(times["original"] / times["compressed"])),
    }


def _all(run: Callable[[None, Feeds], object], requests: list[Feeds]) -> None:
    for feeds in requests:
        run(None, feeds)


def _steps(dataset: str, pair: Pair) -> Table:
    heads = ("step", "bytes", "table bytes", "parameters", "multiply-adds", "AUC valid", "GAUC valid")
    names = ("bytes", "table_bytes", "parameters", "multiply_adds", "valid.auc", "valid.gauc")
    rows: list[tuple[str | int | float, ...]] = [
        (each.what, *(f"{each.figures[name]:.4f}" if "." in name else int(each.figures[name]) for name in names))
        for each in pair.compressed.record.steps
    ]
    return Table(f"{dataset}, {pair.compressed.record.recipe.name}, seed {pair.original.seed}", heads, rows)


def _outcome(dataset: str, figures: dict[str, float], seeds: int) -> Table:
    rows: list[tuple[str | int | float, ...]] = [
        ("bytes, original ÷ compressed", figures["bytes_ratio"]),
        ("multiply-adds a candidate, original ÷ compressed", figures["macs_ratio"]),
        (f"p50 of {CANDIDATES} candidates, tiled original ÷ compressed", figures["p50_ratio"]),
        (f"p50 of {CANDIDATES} candidates, original as served ÷ compressed", figures["p50_ratio_served"]),
    ]
    for prefix, said in (("", "compressed"), ("control.", "control")):
        for metric in METRICS:
            if (key := f"{prefix}d{metric}") in figures:
                value, low, high = (figures[f"{key}{end}"] for end in ("", "_low", "_high"))
                rows.append((f"test {metric}, {said} - original", f"{value:+.5f} ({low:+.5f} to {high:+.5f})"))
    return Table(f"{dataset}, mean of {seeds} seeds", ("what", "measured"), rows)
