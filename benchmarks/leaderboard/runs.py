"""Train what is not trained yet, and score the test split once a run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from zipfile import BadZipFile

import numpy as np

from benchmarks.leaderboard.entries import Entry
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError, read_dataset
from models.data.prepare import ensure_prepared
from models.data.prepared import PreparedData
from models.evaluate import scorer
from models.evaluation import Scored, score_split
from models.labels import labelled, prefix_of
from models.networks.config import DicmConfig
from models.preflight import require_fields, require_splits
from models.train import require_same_run, train_one

SPLIT = "test"
SCORES = f"{SPLIT}-scores.npz"
"""In the checkpoint's folder, so that it goes when the run is begun anew."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of a model."""

    checkpoint: Checkpoint
    data: PreparedData
    scored: Scored


def trainable(entries: list[Entry], raw: Path, reference: str, say: Say) -> list[Entry]:
    """The entries that the data have everything for: DICM reads images, which most data lack. Who is left out is said.

    ConfigError when it is the reference.
    """
    kept = []
    for entry in entries:
        features = read_dataset(entry.path, entry.config, raw).ad_features
        if not isinstance(entry.config.model, DicmConfig) or any(feature.vectors for feature in features):
            kept.append(entry)
        elif entry.model == reference:
            raise ConfigError(f"{entry.path}: the reference {reference!r} reads images, {raw} has none")
        else:
            say(f"{entry.config.name} is left out: it reads images, {raw} has none")
    return kept


def prepare_all(entries: list[Entry], raw: Path, root: Path, *, progress: bool) -> dict[str, PreparedData]:
    """Model -> its data, prepared if they are not: before anything is trained, so that what is wrong is said at once.

    ConfigError or DataError when a configuration does not fit its data, or a split is empty.
    """
    found = {}
    specs = {entry.model: read_dataset(entry.path, entry.config, raw) for entry in entries}
    for entry in entries:
        require_fields(entry.config, specs[entry.model], str(entry.path))
    for entry in entries:
        found[entry.model] = ensure_prepared(specs[entry.model], raw, root, progress=progress)
        found[entry.model].parts(SPLIT)
        require_splits(entry.config, labelled(entry.config, found[entry.model]))
    return found


def run_all(
    entries: list[Entry], data: dict[str, PreparedData], seeds: list[int], out: Path, say: Say, *, progress: bool
) -> dict[str, list[Run]]:
    """Model -> its runs, one a seed. Finished runs are taken up, interrupted ones continued; a line each.

    ConfigError before anything is trained when a folder in `out` holds a run of another configuration or other data.
    """
    for entry in entries:
        for seed in seeds:
            folder = out / f"{entry.config.name}-seed{seed}"
            if (folder / "config.json").exists():
                _require_same(entry, data[entry.model], folder)
    runs: dict[str, list[Run]] = {entry.model: [] for entry in entries}
    total = len(entries) * len(seeds)
    todo = ((entry, seed) for entry in entries for seed in seeds)
    for number, (entry, seed) in enumerate(todo, 1):
        started = monotonic()
        folder = out / f"{entry.config.name}-seed{seed}"
        finished = (folder / "metrics.json").exists()
        train_one(entry.config, data[entry.model], folder, seed, progress=progress)
        checkpoint = open_checkpoint(folder)
        runs[entry.model].append(Run(checkpoint, data[entry.model], scores_of(checkpoint, data[entry.model])))
        how = "taken up" if finished else f"{monotonic() - started:.0f} s"
        key = f"{prefix_of(entry.config)}{SPLIT}"
        shown = "  ".join(f"{name} {checkpoint.metrics.get(f'{key}.{name}', np.nan):.4f}" for name in ("auc", "gauc"))
        say(f"[{number}/{total}] {entry.config.name} seed {seed}: {shown}  ({how})")
    return runs


def _require_same(entry: Entry, data: PreparedData, folder: Path) -> None:
    try:
        require_same_run(entry.config, data, folder)
    except ConfigError as error:
        raise ConfigError(f"{error} with `adrank train`, another --out leaves it as it is") from error


def scores_of(checkpoint: Checkpoint, data: PreparedData) -> Scored:
    """The checkpoint's scores of the test split, computed once and kept beside it. ConfigError when they cannot be
    read."""
    path = checkpoint.folder / SCORES
    if not path.exists():
        found = score_split(scorer(checkpoint), labelled(checkpoint.config, data), SPLIT)
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, labels=found.labels, users=found.users, rows=found.rows, scores=found.scores)
        temporary.replace(path)
    try:
        with np.load(path, allow_pickle=False) as kept:
            return Scored(kept["labels"], kept["users"], kept["rows"], None, kept["scores"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ConfigError(f"{path}: no scores: {error}; remove it, it will be made again") from error
