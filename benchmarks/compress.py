"""DIN at paper size against what a recipe makes of it: bytes, multiply-adds, quality over several seeds, time.

The originals are trained with `adrank train`'s loop unless they are there already, and compressed with the recipe named
like the data, both from models/configs. Quality: the mean over seeds of compressed minus original on the same
impressions of the test split, with a paired interval over draws of users. Time: p50 for 500 candidates of the original
as it is usually exported (benchmarks/tiled.py), of the original as we serve it, and of the compressed network, taking
turns.

Two recipes make the same network: in one, fine-tuning learns from the original, in the other (`-taught`) from the
originals of all seeds. Beside each stands its control, the original fine-tuned alike, without any compression: it tells
what compression costs from what further training, or several teachers, bring.
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
from models.compression.teachers import open_teachers
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
SIDES = {"": "taught", "control.": "taught control", "own.": "own teacher", "own.control.": "own teacher's control"}
"""Part of a key -> who is compared with the original."""


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
    """`DATASET.bytes_ratio`, `.macs_ratio`, `.dgauc`, `.dgauc_low`, `.p50_ratio` and so on, of the recipe with several
    teachers; `.own.` of that with the original as teacher, `.control.` and `.own.control.` of the controls,
    `.against_control.` and `.own.against_control.` compressed minus control. ValueError for what cannot be used.
    `--quick`: one seed of small simulated data, so there is one teacher."""
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
class Made:
    """One seed's original, and what was made of it."""

    original: Checkpoint
    sides: dict[str, Compressed]
    """By SIDES."""


def _measure(report: Report, dataset: str, raw: Path, out: Path, seeds: list[int]) -> None:
    """One data set."""
    path = CONFIGS / f"{dataset}-din-paper.yaml"
    config = read_config(path)
    data = ensure_prepared(read_dataset(path, config, raw), raw, out / "data", progress=False)
    folders = [out / f"{config.name}-seed{seed}" for seed in seeds]
    for seed, folder in zip(seeds, folders, strict=True):
        train_one(config, data, folder, seed, progress=False)
    made = [_made(dataset, folder, folders, data) for folder in folders]
    first, last = (made[0].sides[""].record.steps[i].figures for i in (0, -1))
    figures = {
        "bytes_ratio": first["bytes"] / last["bytes"],
        "table_bytes_ratio": first["table_bytes"] / last["table_bytes"],
        "macs_ratio": first["multiply_adds"] / last["multiply_adds"],
    }
    figures |= _quality(made, data) | _times(made[0], data)
    report.figures |= {f"{dataset}.{name}": value for name, value in figures.items()}
    report.tables += [_steps(dataset, made[0]), _outcome(dataset, figures, len(seeds))]


def _made(dataset: str, folder: Path, all_folders: list[Path], data: PreparedData) -> Made:
    """Both recipes and their controls, of one original."""
    original, sides = open_checkpoint(folder), {}
    for key, name, teachers in (("", "-taught", all_folders), ("own.", "", [])):
        recipe = read_recipe(CONFIGS / f"recipes/{dataset}-din{name}.yaml")
        tuning = tuple(step for step in recipe.steps if isinstance(step, FineTune))
        control = Recipe(name=f"{recipe.name}-control", steps=tuning)
        known = open_teachers(teachers, original)
        for side, each in ((key, recipe), (f"{key}control.", control)):
            out = folder.with_name(f"{folder.name}-{each.name}")
            sides[side] = compress(original, each, data, out, original.seed, progress=False, teachers=known)
    return Made(original, sides)


def _quality(made: list[Made], data: PreparedData) -> dict[str, float]:
    """Each side minus the original, and minus its control, mean over seeds."""
    networks = [each.sides[""].original.network for each in made]
    networks += [each.sides[side].subject.network for side in SIDES for each in made]
    scored = [score_split(network_scorer(each), data, "test") for each in networks]
    drawn, n = bootstrap(scored[0].labels, scored[0].users, [each.scores for each in scored]), len(made)
    found = {f"original.{metric}": float(drawn.measured[metric][:n].mean()) for metric in METRICS}
    places = {side: range(i * n, (i + 1) * n) for i, side in enumerate(SIDES, 1)}
    compared = {side: (places[side], range(n)) for side in SIDES}
    compared |= {f"{own}against_control.": (places[own], places[f"{own}control."]) for own in ("", "own.")}
    for prefix, (ours, theirs) in compared.items():
        for metric in METRICS:
            each = drawn.difference(metric, ours, theirs)
            found |= {
                f"{prefix}d{metric}": each.value,
                f"{prefix}d{metric}_low": each.low,
                f"{prefix}d{metric}_high": each.high,
            }
    return found


def _times(made: Made, data: PreparedData) -> dict[str, float]:
    """p50 of three graphs for the same requests."""
    found = made.sides[""]
    original, subject = found.original.network, found.subject.network
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


def _steps(dataset: str, made: Made) -> Table:
    found = made.sides[""].record
    heads = ("step", "bytes", "table bytes", "parameters", "multiply-adds", "AUC valid", "GAUC valid")
    names = ("bytes", "table_bytes", "parameters", "multiply_adds", "valid.auc", "valid.gauc")
    rows: list[tuple[str | int | float, ...]] = [
        (each.what, *(f"{each.figures[name]:.4f}" if "." in name else int(each.figures[name]) for name in names))
        for each in found.steps
    ]
    return Table(f"{dataset}, {found.recipe.name}, seed {made.original.seed}", heads, rows)


def _outcome(dataset: str, figures: dict[str, float], seeds: int) -> Table:
    rows: list[tuple[str | int | float, ...]] = [
        ("bytes, original ÷ compressed", figures["bytes_ratio"]),
        ("multiply-adds a candidate, original ÷ compressed", figures["macs_ratio"]),
        (f"p50 of {CANDIDATES} candidates, tiled original ÷ compressed", figures["p50_ratio"]),
        (f"p50 of {CANDIDATES} candidates, original as served ÷ compressed", figures["p50_ratio_served"]),
    ]
    compared = {side: f"{said} - original" for side, said in SIDES.items()}
    compared |= {"against_control.": "taught - its control", "own.against_control.": "own teacher - its control"}
    for prefix, said in compared.items():
        for metric in METRICS:
            value, low, high = (figures[f"{prefix}d{metric}{end}"] for end in ("", "_low", "_high"))
            rows.append((f"test {metric}, {said}", f"{value:+.5f} ({low:+.5f} to {high:+.5f})"))
    return Table(f"{dataset}, mean of {seeds} seeds", ("what", "measured"), rows)
