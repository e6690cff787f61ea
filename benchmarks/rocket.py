"""Rocket Launching against the light net alone and the booster alone, and what each of its parts is worth.

Every variant is the pair of models/configs/DATASET-rocket.yaml with one thing changed (`paper`: with all that the
configuration adds taken away), so all have the same training: the configuration's, or with --epochs and --batch-size
another. A run is chosen on the validation split; figures are of
the test split, with paired intervals (models/intervals.py) against the light net alone and the booster alone. The gap
is the mean (l - z)² of the light net's and the booster's logits on the validation split.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboard.entries import Entry
from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.runs import Run, prepare_all, run_all
from benchmarks.report import Report, Table
from models.config import ConfigError, TrainConfig, read_config
from models.data.spec import DataError
from models.evaluation import network_scorer, score_split
from models.intervals import REPLICATES
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.networks.network import Network
from models.numerics import at_least, computing
from models.rocket import read_booster
from models.training import TrainingError

CONFIGS = Path("models/configs")
DATASETS = ("kuairand", "marketplace")
QUICK = MarketplaceSpec(seed=1, ads=300, users=300, impressions=20_000, days=5)
METRICS = ("auc", "gauc", "logloss")
ALONE = ("light", "booster")
"""What every variant is compared with."""


def _with(config: TrainConfig, **settings: Any) -> TrainConfig:
    """`config` with some keys of its rocket changed, checked anew."""
    whole = config.model_dump(mode="json")
    return TrainConfig.model_validate(whole | {"rocket": whole["rocket"] | settings})


def _light(config: TrainConfig) -> TrainConfig:
    return config.model_copy(update={"rocket": None})


def _booster(config: TrainConfig) -> TrainConfig:
    assert config.rocket is not None, "asked before"
    return config.model_copy(update={"rocket": None, "model": config.rocket.booster})


VARIANTS: dict[str, tuple[str, Callable[[TrainConfig], TrainConfig]]] = {
    "light": ("light net alone", _light),
    "booster": ("booster alone", _booster),
    "rocket": ("light net by rocket", lambda config: config),
    "paper": ("as in the paper, λ = 0.3", partial(_with, hint=0.3, block_arena=False, centre=False)),
    "no-hint": ("no hint", partial(_with, hint=0.0)),
    "no-block": ("no gradient block", partial(_with, block=False)),
    "no-sharing": ("no sharing", partial(_with, share=False)),
    "arena": ("the hint reaches the embeddings", partial(_with, block_arena=False)),
    "level": ("the hint has the level", partial(_with, centre=False)),
    "averaged": ("the averaged booster's hint", partial(_with, teacher="averaged")),
    **{f"hint-{hint:g}": (f"λ = {hint:g}", partial(_with, hint=hint)) for hint in (0.03, 0.1, 0.3, 1.0, 3.0)},
    "kd-1": ("kd, T = 1", partial(_with, method="kd", centre=False)),
    "kd-2": ("kd, T = 2", partial(_with, method="kd", temperature=2.0, centre=False)),
}
"""Name -> how it is called in the table, and the configuration made of the project's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which data, variants and seeds."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data/kuairand"), metavar="DIR", help="raw files")
    parser.add_argument("--dataset", choices=DATASETS, default="kuairand", help="whose pair (default kuairand)")
    parser.add_argument(
        "--variants", choices=VARIANTS, nargs="+", default=list(VARIANTS), metavar="NAME", help="default all"
    )
    parser.add_argument(
        "--epochs", type=at_least(1), metavar="N", help="passes over the training split (default: the configuration's)"
    )
    parser.add_argument(
        "--batch-size", type=at_least(1), metavar="N", help="impressions a step (default: the configuration's)"
    )
    parser.add_argument("--seeds", type=at_least(0), metavar="N", nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("artifacts/checkpoints"),
        help="where finished runs are looked for and new ones go (default artifacts/checkpoints)",
    )  # fmt: skip
    parser.add_argument(
        "--prepared", type=Path, metavar="DIR", default=Path("artifacts/data"), help="default artifacts/data"
    )


def run(arguments: argparse.Namespace) -> Report:
    """`rocket.<dataset>.<variant>.auc`, `.gauc`, `.logloss` (`_std` with several seeds), `.multiply_adds`, `.gap`;
    `.dgauc.light` and `.dgauc.booster` with `_low` and `_high`, differences to these networks alone, of AUC and log
    loss as well; `.fewer`, the booster's multiply-adds ÷ the light net's.

    With --quick a small simulated marketplace in place of --data. ValueError when something cannot be used.
    """
    names = [name for name in VARIANTS if name in {*ALONE, *arguments.variants}]
    dataset = "marketplace" if arguments.quick else arguments.dataset
    try:
        changed = {"batch_size": arguments.batch_size, "epochs": arguments.epochs}
        training = {key: value for key, value in changed.items() if value is not None}
        entries = entries_of(CONFIGS / f"{dataset}-rocket.yaml", names, **training)
        with tempfile.TemporaryDirectory(prefix="adrank-rocket-") as temporary, computing(1):
            work = Path(temporary)
            raw, prepared, out = arguments.data, arguments.prepared, arguments.out
            if arguments.quick:
                raw, prepared, out = work / "raw", work / "data", work / "out"
                write_marketplace(QUICK, raw, lambda _: None)
            data = prepare_all(entries, raw, prepared, progress=False)
            return report(dataset, run_all(entries, data, arguments.seeds, out, _say, progress=False))
    except (ConfigError, DataError, TrainingError) as error:
        raise ValueError(str(error)) from error


def entries_of(path: Path, names: list[str], **training: int) -> list[Entry]:
    """A configuration a variant, but for those that are the rocket as it is; `training` in place of its own values.

    ConfigError when the configuration at `path` is no rocket.
    """
    config = read_config(path)
    if config.rocket is None:
        raise ConfigError(f"{path}: there is no rocket in it")
    if training:
        ending = "".join(f"-{key.replace('_', '-')}-{value}" for key, value in training.items())
        changed = {"training": config.training.model_copy(update=training), "name": config.name + ending}
        config = config.model_copy(update=changed)
    found = []
    for name in names:
        made = VARIANTS[name][1](config)
        if name == "rocket" or made != config:
            called = config.name if name == "rocket" else f"{config.name}-{name}"
            found.append(Entry(path, made.model_copy(update={"name": called}), name))
    return found


def gap(run: Run) -> float | None:
    """Mean squared difference of the two networks' logits on the validation split; None for a net alone."""
    settings = run.checkpoint.config.rocket
    if settings is None:
        return None
    light = _logits(run.checkpoint.network(), run)
    booster = _logits(read_booster(run.checkpoint.folder, settings, run.checkpoint.schema), run)
    return float(np.square(light - booster).mean())


def report(dataset: str, runs: dict[str, list[Run]], replicates: int = REPLICATES) -> Report:
    """The runs of `light`, `booster` and other variants as figures and a table."""
    found: dict[str, float] = {}
    for alone in ALONE:
        for key, value in figures(dataset, runs, alone, replicates).items():
            _, _, rest = key.partition(".")
            variant, _, what = rest.rpartition(".")  # a variant may be hint-0.03
            if what.startswith("d") and variant != alone:
                metric, mark, end = what.partition("_")
                found[f"rocket.{dataset}.{variant}.{metric}.{alone}{mark}{end}"] = value
            elif what.removesuffix("_std") in {*METRICS, "multiply_adds"}:
                found[f"rocket.{dataset}.{variant}.{what}"] = value
    large = found[f"rocket.{dataset}.booster.multiply_adds"]
    rows: list[tuple[str | int | float, ...]] = []
    for variant, own in runs.items():
        start = f"rocket.{dataset}.{variant}"
        found[f"{start}.fewer"] = large / found[f"{start}.multiply_adds"]
        gaps = [each for run in own if (each := gap(run)) is not None]
        if gaps:
            found[f"{start}.gap"] = float(np.mean(gaps))
        rows.append((VARIANTS[variant][0], *_cells(found, start)))
    result = Report("rocket", figures=found)
    heads = ("", "AUC", "GAUC", "log loss", "GAUC to light alone", "GAUC to booster alone", "fewer", "gap")
    result.tables.append(Table(f"Rocket Launching on {dataset}, {len(runs['light'])} seeds, test split", heads, rows))
    return result


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _logits(network: Network, run: Run) -> npt.NDArray[np.float64]:
    scores = score_split(network_scorer(network), run.data, "valid").scores.astype(np.float64)
    return np.asarray(np.log(scores) - np.log1p(-scores))


def _cells(found: dict[str, float], start: str) -> list[str]:
    cells = [_mean(found, f"{start}.{metric}") for metric in METRICS]
    cells += [_difference(found, f"{start}.dgauc.{alone}") for alone in ALONE]
    cells.append(f"{found[f'{start}.fewer']:.1f} x")
    return [*cells, f"{found[f'{start}.gap']:.3f}" if f"{start}.gap" in found else ""]


def _mean(found: dict[str, float], key: str) -> str:
    spread = f" ± {found[f'{key}_std']:.4f}" if f"{key}_std" in found else ""
    return f"{found[key]:.4f}{spread}"


def _difference(found: dict[str, float], key: str) -> str:
    if key not in found:
        return ""
    return f"{found[key]:+.4f} ({found[f'{key}_low']:+.4f} to {found[f'{key}_high']:+.4f})"
