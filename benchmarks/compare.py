"""Several configurations against one of them: means over seeds, and paired intervals, as a whole and for each value of
a context field.

Trains what is not trained yet, as the leaderboard does, but times nothing. A model of a single value (`training.only`)
is compared on the rows of its value only.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboard.entries import find_entries
from benchmarks.leaderboard.figures import same_rows
from benchmarks.leaderboard.page import TITLES
from benchmarks.leaderboard.runs import SPLIT, Run, prepare_all, run_all
from benchmarks.report import Report, Table
from models.config import ConfigError, TrainConfig
from models.data.batches import batches
from models.data.context_values import context_field, name_of, vocabulary_of
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.evaluate import scorer
from models.evaluation import BATCH, Scored, score_split
from models.intervals import METRICS, REPLICATES, Interval, bootstrap
from models.labels import labelled
from models.metrics import auc
from models.numerics import at_least, computing
from models.training import TrainingError

ALL = "all"
COLUMNS = ("AUC, valid", "AUC", "±", "GAUC", "±", "log loss", "ΔAUC", "ΔGAUC", "Δlog loss")


@dataclass(frozen=True, slots=True)
class Outcome:
    """One model on some rows: metric -> one value a seed, and the differences from the reference."""

    model: str
    measured: dict[str, npt.NDArray[np.float64]]
    valid: float
    differences: dict[str, Interval]
    """By metric; empty for the reference itself."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which configurations, on which data."""
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with the raw files")
    parser.add_argument("--dataset", choices=TITLES, default="kuairand", help="whose models (default kuairand)")
    parser.add_argument("--configs", metavar="GLOB", nargs="+", help="configurations, the reference's among them")
    parser.add_argument(
        "--reference", metavar="MODEL", help="what differences are against, without the data set's name"
    )
    parser.add_argument("--by", metavar="FIELD", help="also for each value of a categorical context field")
    parser.add_argument("--rows", type=at_least(1), metavar="N", default=1000, help="of --by: values with so many rows")
    parser.add_argument("--seeds", type=at_least(0), metavar="N", nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("artifacts/checkpoints"), help="checkpoints")
    parser.add_argument("--prepared", type=Path, metavar="DIR", default=Path("artifacts/data"), help="prepared data")
    parser.add_argument("--replicates", type=at_least(1), metavar="N", default=REPLICATES, help="draws of users")
    parser.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="in training (default 2)")


def run(arguments: argparse.Namespace) -> Report:
    """`compare.<rows>.<model>.<metric>`, and `.d<metric>`, `_low`, `_high`; rows are `all`, or FIELD.VALUE.

    --quick: one seed, 100 draws. ValueError when something is missing or cannot be used.
    """
    if arguments.data is None or not arguments.configs or arguments.reference is None:
        raise ValueError("--data, --configs and --reference are needed")
    seeds, replicates = (arguments.seeds[:1], 100) if arguments.quick else (arguments.seeds, arguments.replicates)
    try:
        with computing(arguments.threads):
            entries = find_entries(arguments.dataset, arguments.configs, arguments.reference)
            data = prepare_all(entries, arguments.data, arguments.prepared, progress=False)
            runs = run_all(entries, data, seeds, arguments.out, _say, progress=False)
            return compare(runs, arguments.reference, replicates, arguments.by, arguments.rows)
    except (ConfigError, DataError, TrainingError) as error:
        raise ValueError(str(error)) from error


def compare(
    runs: dict[str, list[Run]], reference: str, replicates: int, field: str | None = None, least: int = 1000
) -> Report:
    """The report; of `field`, values that have `least` rows of the test split. ConfigError when a model has scored
    other impressions, or another label, than the reference."""
    basis = runs[reference][0]
    for model, own in runs.items():
        if not all(same_rows(each, basis) for each in own):
            raise ConfigError(f"{model} has scored other impressions or another label than {reference}")
    valid = {model: [_valid(each) for each in own] for model, own in runs.items()}
    config = basis.checkpoint.config
    parts: dict[str, tuple[npt.NDArray[np.bool_], ...]] = {
        ALL: tuple(np.ones(len(each.labels), np.bool_) for each in (basis.scored, valid[reference][0]))
    }
    if field is not None:
        parts |= _values(labelled(config, basis.data), field, least)
    result = Report("compare")
    rows: list[tuple[str | int | float, ...]] = []
    for part, (tested, validated) in parts.items():
        some = {model: own for model, own in runs.items() if _reads(own[0].checkpoint.config, part)}
        click_rate = float(basis.scored.labels[tested].mean())
        result.figures |= {f"compare.{part}.rows": int(tested.sum()), f"compare.{part}.rate": click_rate}
        for outcome in _outcomes(some, valid, tested, validated, reference, replicates):
            rows.append((part, int(tested.sum()), f"{click_rate:.4f}", outcome.model, *_cells(outcome)))
            result.figures |= {f"compare.{part}.{outcome.model}.{k}": v for k, v in _figures(outcome).items()}
    title = f"{config.training.label} on the {SPLIT} split, against {reference}"
    result.tables.append(Table(title, ("rows of", "rows", "rate", "model", *COLUMNS), rows))
    return result


def _outcomes(
    runs: dict[str, list[Run]],
    valid: dict[str, list[Scored]],
    tested: npt.NDArray[np.bool_],
    validated: npt.NDArray[np.bool_],
    reference: str,
    replicates: int,
) -> list[Outcome]:
    basis = runs[reference][0].scored
    places: dict[str, list[int]] = {}
    scores: list[npt.NDArray[np.float32]] = []
    for model, own in runs.items():
        places[model] = list(range(len(scores), len(scores) + len(own)))
        scores += [each.scored.scores[tested] for each in own]
    drawn = bootstrap(basis.labels[tested], basis.users[tested], scores, replicates)
    return [
        Outcome(
            model,
            {metric: drawn.measured[metric][places[model]] for metric in METRICS},
            float(np.mean([auc(each.labels[validated], each.scores[validated]) for each in valid[model]])),
            {metric: drawn.difference(metric, places[model], places[reference]) for metric in METRICS}
            if model != reference
            else {},
        )
        for model in runs
    ]


def _values(data: PreparedData, field: str, least: int) -> dict[str, tuple[npt.NDArray[np.bool_], ...]]:
    """FIELD.VALUE -> which rows of the test split and of the validation split have it; frequent ones first."""
    spec, column = context_field(data, field)
    vocabulary = vocabulary_of(data, spec)
    ids = [
        np.concatenate([batch.context[batch.request, column].numpy() for batch in batches(data, split, BATCH)])
        for split in (SPLIT, "valid")
    ]
    distinct, counts = np.unique(ids[0], return_counts=True)
    frequent = [i for i, n in sorted(zip(distinct, counts, strict=True), key=lambda each: -each[1]) if n >= least]
    return {f"{field}.{name_of(vocabulary, int(i))}": tuple(each == i for each in ids) for i in frequent}


def _valid(run: Run) -> Scored:
    return score_split(scorer(run.checkpoint), labelled(run.checkpoint.config, run.data), "valid")


def _reads(config: TrainConfig, part: str) -> bool:
    """Whether a model is compared on these rows: one of a single value only on those of that value."""
    only = config.training.only
    return only is None or part == f"{only.field}.{only.value}"


def _cells(outcome: Outcome) -> Sequence[str]:
    own = outcome.measured
    return [
        f"{outcome.valid:.4f}",
        *(f"{value:.4f}" for metric in ("auc", "gauc") for value in (own[metric].mean(), _deviation(own[metric]))),
        f"{own['logloss'].mean():.4f}",
        *(_shown(outcome.differences.get(metric)) for metric in METRICS),
    ]


def _figures(outcome: Outcome) -> dict[str, float]:
    found = {"valid_auc": outcome.valid}
    for metric, values in outcome.measured.items():
        found |= {metric: float(values.mean()), f"{metric}_std": _deviation(values)}
    for metric, each in outcome.differences.items():
        found |= {f"d{metric}": each.value, f"d{metric}_low": each.low, f"d{metric}_high": each.high}
    return found


def _deviation(values: npt.NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _shown(each: Interval | None) -> str:
    return "–" if each is None else f"{each.value:+.4f} ({each.low:+.4f} to {each.high:+.4f})"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
