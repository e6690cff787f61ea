"""What images tell of new ads: DICM against the same network without images, on a simulated marketplace.

Half of its ads are launched at some moment of the log, so that the test split has ads that training showed never or
seldom. What is an ad's own, and whether it looks like what a user clicked on before, move the true click probability;
ids tell both of ads that were shown, images of all (models/marketplace/looks.py). Embeddings, layers on top and
training are the same for all models (models/configs/marketplace-*.yaml); `dicm-image` asks by the ad's image alone.

Everything is kept in --out: the same command goes on where it was interrupted.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.leaderboard.entries import CONFIGS, Entry
from benchmarks.leaderboard.runs import SPLIT, Run, prepare_all, run_all
from benchmarks.report import Report, Table
from models.cold_ads import GROUPS, groups_of, shown_in_training
from models.config import ConfigError, read_config
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.intervals import bootstrap
from models.marketplace.files import write_marketplace
from models.marketplace.spec import Effects, MarketplaceSpec
from models.metrics import auc
from models.networks.config import DicmConfig
from models.numerics import at_least, computing

EFFECTS = Effects(appeal=0.5, style=2.0)
FULL = MarketplaceSpec(seed=1, ads=5_000, users=5_000, impressions=400_000, images=32, launched=0.5, effects=EFFECTS)
"""Of the size of `adrank demo`."""
PER_AD = FULL.impressions // FULL.ads
QUICK = MarketplaceSpec(seed=1, ads=400, users=500, impressions=30_000, images=8, launched=0.5, effects=EFFECTS)
REFERENCES = ("gwen", "din")
OURS = ("dicm", "dicm-image")
MODELS = (*REFERENCES, *OURS)
REPLICATES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where it is kept, how large it is, and how often it is trained."""
    parser.add_argument("--out", type=Path, default=Path("artifacts/cold-ads"), metavar="DIR", help="kept there")
    parser.add_argument(
        "--ads", type=at_least(FULL.brands), metavar="N", default=FULL.ads,
        help=f"in the marketplace, with as many users and {PER_AD} impressions each (default {FULL.ads})",
    )  # fmt: skip
    parser.add_argument(
        "--models", choices=MODELS, nargs="+", default=MODELS, metavar="NAME",
        help=f"dicm among them (default {' '.join(MODELS)})",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="N", help="default 1 2 3")


def run(arguments: argparse.Namespace) -> Report:
    """`cold_ads.<group>.<model>.auc` and `.logloss`, means of seeds; `.<model>-<reference>.dauc` with `_low` and
    `_high`; `cold_ads.<group>.impressions` and `.best_auc`.

    With --quick a small marketplace and one seed. ValueError when something cannot be used, or DICM is left out.
    """
    if "dicm" not in arguments.models:
        raise ValueError(f"--models {' '.join(arguments.models)}: dicm is missing")
    spec, seeds = (QUICK, arguments.seeds[:1]) if arguments.quick else (of_size(arguments.ads), arguments.seeds)
    out = arguments.out / ("quick" if arguments.quick else f"{spec.ads}-ads")
    raw = out / "marketplace"
    try:
        if not raw.exists():
            write_marketplace(spec, raw, lambda _: None)
        entries = [_entry(model) for model in MODELS if model in arguments.models]
        with computing(1):
            data = prepare_all(entries, raw, out / "data", progress=False)
            runs = run_all(entries, data, seeds, out / "checkpoints", _say, progress=False)
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error
    return report(runs, data["dicm"], len(seeds))


def of_size(ads: int) -> MarketplaceSpec:
    """The marketplace with so many ads, as many users, and impressions in proportion."""
    return FULL.model_copy(update={"ads": ads, "users": ads, "impressions": ads * PER_AD})


def report(runs: dict[str, list[Run]], data: PreparedData, seeds: int) -> Report:
    """A row a group of ads, and one of all."""
    result = Report("cold_ads")
    scored = runs["dicm"][0].scored
    group, truth = groups_of(shown_in_training(data))[scored.rows], _truth(data)
    pairs = [(ours, other) for ours in OURS for other in REFERENCES if {ours, other} <= runs.keys()]
    gains: list[tuple[str | int | float, ...]] = []
    rows: list[tuple[str | int | float, ...]] = []
    for index, name in enumerate((*GROUPS, "all")):
        mine = np.flatnonzero(group == index) if name != "all" else np.arange(len(group))
        labels, users = scored.labels[mine], scored.users[mine]
        vectors = [each.scored.scores[mine] for own in runs.values() for each in own]
        drawn = bootstrap(labels, users, vectors, REPLICATES)
        places = {model: range(i * seeds, (i + 1) * seeds) for i, model in enumerate(runs)}
        start = f"cold_ads.{name}"
        best = auc(labels, truth[mine])
        result.figures |= {f"{start}.impressions": float(len(mine)), f"{start}.best_auc": best}
        for model, place in places.items():
            for metric in ("auc", "logloss"):
                result.figures[f"{start}.{model}.{metric}"] = float(drawn.measured[metric][list(place)].mean())
        differences = []
        for ours, other in pairs:
            each = drawn.difference("auc", places[ours], places[other])
            key = f"{start}.{ours}-{other}.dauc"
            result.figures |= {key: each.value, f"{key}_low": each.low, f"{key}_high": each.high}
            differences.append(f"{each.value:+.4f} [{each.low:+.4f}, {each.high:+.4f}]")
        rows.append(
            (name, len(mine), *(f"{result.figures[f'{start}.{model}.auc']:.4f}" for model in runs), f"{best:.4f}")
        )
        gains.append((name, *differences))
    heads = tuple(f"{ours} − {other}" for ours, other in pairs)
    said = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    result.tables += [
        Table(f"AUC by training impressions of the ad, {said}", ("shown", "impressions", *runs, "best possible"), rows),
        Table("Difference of AUC, paired 95 % interval over users", ("shown", *heads), gains),
    ]
    return result


def _entry(model: str) -> Entry:
    """`dicm-image` is the configuration of DICM with one query."""
    kind, _, one = model.partition("-")
    path = CONFIGS / f"marketplace-{kind}.yaml"
    config = read_config(path)
    if one:
        assert isinstance(config.model, DicmConfig)
        changed = config.model.model_copy(update={"queries": "image"})
        config = config.model_copy(update={"name": f"marketplace-{model}", "model": changed})
    return Entry(path, config, model)


def _truth(data: PreparedData) -> npt.NDArray[np.float32]:
    """True click probabilities of the test split, in its order."""
    return np.concatenate([batch.truth for batch in batches(data, SPLIT, 65_536) if batch.truth is not None])


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
