"""What recipes do to checkpoints: sizes, and differences from the original on the test split, over several seeds.

Every seed's network is its own original. The difference is that of the mean over seeds, with a paired interval over
draws of users (models/intervals.py). A line says what a recipe has reached after each of its steps. With --pairs
recipes are taken two by two, and the second of each is compared with the first as well, step by step.

Scores are kept in --out under a digest of weights and steps: the same command goes on where it was interrupted.
"""

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report, Table
from models.checkpoint import Checkpoint, open_checkpoint
from models.compression.recipe import Recipe, Step, read_recipe
from models.compression.registry import take
from models.compression.sizes import sizes_of
from models.compression.subject import Material, Subject
from models.config import ConfigError
from models.data.prepared import PreparedData, find_prepared
from models.data.spec import DataError
from models.evaluation import network_scorer, score_split
from models.intervals import METRICS, Interval, Replicates, bootstrap
from models.labels import labelled
from models.numerics import computing
from models.training import TrainingError

SIZES = ("parameters", "dense_parameters", "multiply_adds")
SPLIT = "test"


@dataclass(frozen=True, slots=True)
class Stage:
    """A network, measured: the original, or what is there after a step."""

    scores: npt.NDArray[np.float32]
    """Probabilities of the test split's impressions."""
    sizes: tuple[float, ...]
    """SIZES"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which checkpoints, and which recipes."""
    parser.add_argument(
        "--checkpoints", nargs="+", default=["artifacts/checkpoints/kuairand-din-paper"], metavar="PREFIX",
        help="checkpoint folders without their -seedN",
    )  # fmt: skip
    parser.add_argument("--recipes", type=Path, nargs="+", required=True, metavar="FILE.yaml", help="what is done")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default 1 2 3")
    parser.add_argument(
        "--prepared", type=Path, default=Path("artifacts/data"), metavar="DIR", help="prepared data [artifacts/data]"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("artifacts/recipes"), metavar="DIR", help="kept scores [artifacts/recipes]"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="of each recipe only the first N steps (default all)")
    parser.add_argument("--pairs", action="store_true", help="compare recipe 2 with 1, 4 with 3")


def run(arguments: argparse.Namespace) -> Report:
    """Flat `NAME.RECIPE.STEP.FIGURE`; ValueError for what cannot be opened or compressed."""
    try:
        with computing(1):
            return measure(arguments)
    except (ConfigError, DataError, TrainingError) as error:
        raise ValueError(str(error)) from error


def measure(arguments: argparse.Namespace) -> Report:
    """All of it."""
    recipes = [read_recipe(path) for path in arguments.recipes]
    recipes = [each.model_copy(update={"steps": each.steps[: arguments.steps]}) for each in recipes]
    if arguments.pairs and len(recipes) % 2:
        raise ValueError(f"--pairs needs an even number of recipes, there are {len(recipes)}")
    report = Report("recipes")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for prefix in arguments.checkpoints:
        checkpoints = [open_checkpoint(Path(f"{prefix}-seed{seed}")) for seed in arguments.seeds]
        data = labelled(checkpoints[0].config, find_prepared(arguments.prepared, checkpoints[0].data_fingerprint))
        for each in checkpoints:
            each.require_same_data(data)
        runs = {recipe.name: [stages(each, recipe, data, arguments.out) for each in checkpoints] for recipe in recipes}
        _compare(report, Path(prefix).name, runs, data, pairs=arguments.pairs)
    return report


def stages(checkpoint: Checkpoint, recipe: Recipe, data: PreparedData, kept: Path) -> list[Stage]:
    """The original, and the network after each step; taken from `kept` where it was measured before."""
    weights = hashlib.sha256((checkpoint.folder / "best.pt").read_bytes()).hexdigest()
    digests = [_digest(weights, checkpoint.seed, recipe.steps[:n]) for n in range(len(recipe.steps) + 1)]
    files = [kept / f"{digest}.npz" for digest in digests]
    if not all(file.exists() for file in files):
        original = subject = Subject(checkpoint.config, checkpoint.network())
        _keep(files[0], subject, data)
        for step, digest, file in zip(recipe.steps, digests[1:], files[1:], strict=True):
            folder = kept / digest
            folder.mkdir(exist_ok=True)
            subject = take(step, subject, Material(data, folder, checkpoint.seed, original, False))
            _keep(file, subject, data)
            shutil.rmtree(folder)
    found = []
    for file in files:
        with np.load(file) as stored:
            found.append(Stage(stored["scores"], tuple(stored["sizes"].tolist())))
    return found


def _keep(file: Path, subject: Subject, data: PreparedData) -> None:
    if file.exists():
        return
    sizes = sizes_of(subject.network)
    figures = (sizes.parameters, sizes.dense_bytes / 4, sizes.candidate)
    temporary = file.with_suffix(".tmp.npz")
    np.savez(temporary, scores=score_split(network_scorer(subject.network), data, SPLIT).scores, sizes=figures)
    temporary.replace(file)


def _digest(weights: str, seed: int, steps: Sequence[Step]) -> str:
    said = " ".join([weights, str(seed), *(step.model_dump_json() for step in steps)])
    return hashlib.sha256(said.encode()).hexdigest()[:24]


def _compare(report: Report, name: str, runs: dict[str, list[list[Stage]]], data: PreparedData, *, pairs: bool) -> None:
    """Bootstrap all score vectors of one model together, and write down what differs."""
    truth = score_split(lambda batch: np.zeros(len(batch.labels), np.float32), data, SPLIT)
    scores: list[npt.NDArray[np.float32]] = []
    places: dict[tuple[str, int], list[int]] = {}
    for recipe, seeds in runs.items():
        for number in range(len(seeds[0])):
            places[recipe, number] = list(range(len(scores), len(scores) + len(seeds)))
            scores += [each[number].scores for each in seeds]
    drawn = bootstrap(truth.labels, truth.users, scores)
    rows: list[tuple[str | int | float, ...]] = []
    for recipe, seeds in runs.items():
        for number in range(len(seeds[0])):
            ours, original = places[recipe, number], places[recipe, 0]
            row = _row(report, f"{name}.{recipe}.{number}", recipe, number, seeds, drawn, ours, original)
            if number or not rows:  # the original is the same for all recipes
                rows.append(row if number else ("original", *row[1:]))
    heads = ("recipe", "steps", *SIZES, *(f"d{metric}" for metric in METRICS))
    report.tables.append(Table(f"{name}, mean of {len(seeds)} seeds, against the originals", heads, rows))
    if not pairs:
        return
    names, rows = list(runs), []
    for one, two in zip(names[::2], names[1::2], strict=True):
        for number in range(1, min(len(runs[one][0]), len(runs[two][0]))):
            found = _differences(
                report, f"{name}.{two}-{one}.{number}", drawn, places[two, number], places[one, number]
            )
            rows.append((f"{two} - {one}", number, *found))
    report.tables.append(Table(f"{name}, recipes against each other", ("recipes", "steps", *heads[5:]), rows))


def _row(
    report: Report, key: str, recipe: str, number: int, seeds: list[list[Stage]], drawn: Replicates,
    ours: list[int], original: list[int],
) -> tuple[str | int | float, ...]:  # fmt: skip
    sizes = [float(np.mean([each[number].sizes[i] for each in seeds])) for i in range(len(SIZES))]
    report.figures |= {f"{key}.{name}": value for name, value in zip(SIZES, sizes, strict=True)}
    report.figures |= {f"{key}.{metric}": float(drawn.measured[metric][ours].mean()) for metric in METRICS}
    return (recipe, number, *sizes, *_differences(report, key, drawn, ours, original))


def _differences(report: Report, key: str, drawn: Replicates, ours: list[int], other: list[int]) -> list[str]:
    """ΔAUC, ΔGAUC and Δlog loss as text, and as figures."""
    said = []
    for metric in METRICS:
        found: Interval = drawn.difference(metric, ours, other)
        report.figures |= {
            f"{key}.d{metric}": found.value, f"{key}.d{metric}_low": found.low, f"{key}.d{metric}_high": found.high
        }  # fmt: skip
        said.append(f"{found.value:+.5f} ({found.low:+.5f} to {found.high:+.5f})")
    return said
