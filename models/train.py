"""`adrank train`: one configuration -> prepared data -> checkpoint -> metrics on validation and test."""

import argparse
import json
import math
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from models.checkpoint import Checkpoint, begin, open_checkpoint, run_of, write_json
from models.config import ConfigError, TrainConfig, read_config, read_dataset
from models.continuing import base_of, identity, require_continuable
from models.data.batches import count, recent
from models.data.context_values import restricted
from models.data.prepare import ensure_prepared
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.evaluation import Scorer, evaluate, network_scorer, table_scorer
from models.labels import labelled, prefix_of
from models.networks.config import QscoreConfig
from models.networks.cost import cost_of
from models.networks.network import Network
from models.networks.registry import parameters
from models.numerics import at_least, computing
from models.options import file_to_write, folder_to_write
from models.options import seed as seed_option
from models.preflight import require_fields, require_splits
from models.qscore import fit_qscore
from models.rocket import read_booster
from models.training import TrainingError, train

SHOWN = ("auc", "gauc", "logloss", "calibration", "best_auc")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        "adrank train",
        description="Train a model. Chooses on the validation split, then reports validation and test. An interrupted "
        "run continues where it stopped when the same command is given again.",
    )
    p.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.yaml",
        help="YAML of model and training, e.g. models/configs/kuairand-din.yaml",
    )
    p.add_argument(
        "--data", type=Path, metavar="DIR", required=True, help="folder with the raw files the dataset's YAML names"
    )
    p.add_argument(
        "--seed",
        type=seed_option,
        metavar="N",
        nargs="+",
        default=[1],
        help="one or several; several report mean and std (default 1)",
    )
    p.add_argument(
        "--out",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/checkpoints"),
        help="where the folders NAME-seedN go (default artifacts/checkpoints)",
    )
    p.add_argument(
        "--prepared",
        type=folder_to_write,
        metavar="DIR",
        default=Path("artifacts/data"),
        help="where prepared data are kept (default artifacts/data)",
    )
    p.add_argument(
        "--continue-from",
        type=Path,
        metavar="CHECKPOINT",
        help="folder of a finished run: start from its weights and its optimiser's moments; new values get ids",
    )
    p.add_argument(
        "--since",
        type=log_time,
        metavar="TIME",
        help="train on rows of the training split at this time or later only: in the log's own times, or, where those "
        "are Unix milliseconds, a date such as 2022-04-30 (UTC) or 2022-04-30T00:00+08:00",
    )
    p.add_argument("--threads", type=at_least(1), metavar="N", default=2, help="torch threads (default 2)")
    p.add_argument("--fresh", action="store_true", help="forget an earlier run of the same name and seed")
    p.add_argument("--json", type=file_to_write, metavar="FILE", help="write the metrics as flat JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bars")
    return p


def log_time(text: str) -> int:
    """What --since is read with: an integer as it is, a date or date and time in Unix milliseconds."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither an integer nor a date such as 2022-04-30") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def main(argv: list[str]) -> int:
    """Exit code 0, 2 for bad input, 130 when interrupted."""
    options = parser().parse_args(argv)
    if len(set(options.seed)) < len(options.seed):
        print(f"adrank train: --seed names a seed twice: {options.seed}", file=sys.stderr)
        return 2
    with computing(options.threads):
        return run(options)


def run(options: argparse.Namespace) -> int:
    """The command with its options read."""
    try:
        config = read_config(options.config)
        spec = read_dataset(options.config, config, options.data)
        folders = {seed: options.out / f"{config.name}-seed{seed}" for seed in options.seed}
        earlier = None if options.continue_from is None else open_checkpoint(options.continue_from)
        if earlier is not None:
            require_continuable(config, earlier, list(folders.values()))
        if options.since is not None and isinstance(config.model, QscoreConfig):
            raise ConfigError(f"--since {options.since}: a Qscore counts the whole training split")
        require_fields(config, spec, str(options.config))
        base = None if earlier is None else base_of(earlier)
        data = ensure_prepared(spec, options.data, options.prepared, progress=not options.quiet, base=base)
        if options.since is not None:
            data = recent(data, options.since)
        runs = []
        for seed, folder in folders.items():
            if options.fresh and folder.exists():
                shutil.rmtree(folder)
            runs.append(train_one(config, data, folder, seed, progress=not options.quiet, earlier=earlier))
            print(f"{folder}\n{table(runs[-1], prefix_of(config))}")
    except (ConfigError, DataError, TrainingError) as error:
        print(f"adrank train: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("adrank train: interrupted; the same command continues from here", file=sys.stderr)
        return 130
    metrics = summarise(runs)
    if len(runs) > 1:
        print(f"mean of {len(runs)} seeds\n{table(metrics, prefix_of(config))}")
    if options.json:
        write_json(options.json, metrics)
    return 0


def train_one(
    config: TrainConfig,
    data: PreparedData,
    folder: Path,
    seed: int,
    *,
    progress: bool,
    earlier: Checkpoint | None = None,
) -> dict[str, float]:
    """Train (or continue, or take up the finished run in `folder`) and return its flat metrics.

    `earlier`: the checkpoint to start from, on which `data` was prepared.
    """
    finished = folder / "metrics.json"
    continued = identity(config, earlier)
    if (folder / "config.json").exists():
        require_same_run(config, data, folder, continued)
        if finished.exists():
            return dict(open_checkpoint(folder).metrics)
    elif folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} holds something else than a run; --fresh removes it, or choose another --out")
    require_fields(config, data.prepared.spec, config.name)
    data = labelled(config, data)
    if (only := config.training.only) is not None:
        data = restricted(data, only.field, only.value)
    require_splits(config, data)
    begin(folder, config, data, seed, continued)
    try:
        metrics = measured(config, data, folder, seed, progress=progress, earlier=earlier)
    except (ConfigError, DataError):
        if not any((folder / name).exists() for name in ("last.pt", "best.pt")):  # refused before the first step
            shutil.rmtree(folder)
        raise
    write_json(finished, metrics)
    return metrics


def measured(
    config: TrainConfig, data: PreparedData, folder: Path, seed: int, *, progress: bool, earlier: Checkpoint | None
) -> dict[str, float]:
    """Train in a folder that was begun, and measure: the run's flat metrics."""
    metrics: dict[str, float] = {}
    scores: dict[str, Scorer]
    if isinstance(config.model, QscoreConfig):
        qscore = fit_qscore(config.model, data)
        np.savez(folder / "qscore.npz", scores=qscore.scores, mean=qscore.mean, strength=qscore.strength)
        metrics |= {"qscore.mean": qscore.mean, "qscore.strength": qscore.strength}
        scores = {"": table_scorer(qscore.scores)}
    else:
        network = train(config, config.model, data, folder, seed, progress=progress, earlier=earlier)
        log = torch.load(folder / "last.pt", weights_only=True)["progress"]
        metrics |= {"train.samples_per_s": log["samples"] / max(log["seconds"], 1e-9), "train.seconds": log["seconds"]}
        if (folder / "fm/last.pt").exists():
            before = torch.load(folder / "fm/last.pt", weights_only=True)["progress"]
            metrics["pretraining.seconds"] = before["seconds"]
        metrics |= sizes("model", network) | network.figures()
        scores = {"": network_scorer(network)}
        if config.rocket is not None:
            booster = read_booster(folder, config.rocket, data.schema)
            metrics |= sizes("booster", booster)
            scores["booster."] = network_scorer(booster)
    for split in ("valid", "test"):
        if count(data, split):
            for whose, score in scores.items():
                found = evaluate(score, data, split)
                metrics |= {f"{whose}{prefix_of(config)}{split}.{name}": value for name, value in found.items()}
    return metrics


def sizes(name: str, network: Network) -> dict[str, float]:
    """Parameters of a network, and its multiply-adds a candidate and a request."""
    cost = cost_of(network)
    return {
        f"{name}.parameters": parameters(network),
        f"{name}.multiply_adds": cost.candidate,
        f"{name}.multiply_adds_request": cost.request,
    }


def require_same_run(
    config: TrainConfig, data: PreparedData, folder: Path, continued: Mapping[str, str] | None = None
) -> None:
    """ConfigError when `folder` holds a run of another configuration, of other data, or with another start."""
    wanted = run_of(config, data, continued)
    try:
        head = json.loads((folder / "config.json").read_text())
        # Runs of versions that could not continue have no such keys: they had all rows, and started from nothing.
        found = {key: head[key] if key in ("config", "data") else head.get(key) for key in wanted}
        # As configurations, not as they are written: a key that came later has its default in an earlier run.
        found["config"] = TrainConfig.model_validate(found["config"]).model_dump(mode="json")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / 'config.json'}: cannot be read: {error}; --fresh starts over") from error
    if found["config"] != wanted["config"] or found["data"] != wanted["data"]:
        raise ConfigError(f"{folder} holds a run with another configuration or other data; --fresh starts over")
    if found["since"] != wanted["since"]:
        raise ConfigError(
            f"{folder} holds a run since {found['since']}, asked for is {wanted['since']}; --fresh starts over"
        )
    if found["continued"] != wanted["continued"]:
        raise ConfigError(f"{folder} holds a run that started from another checkpoint, or none; --fresh starts over")


def summarise(runs: list[dict[str, float]]) -> dict[str, float]:
    """The runs' mean, and `KEY.std` where there are several."""
    keys = [key for key in runs[0] if all(key in run for run in runs)]
    metrics = {key: float(np.mean([run[key] for run in runs])) for key in keys}
    if len(runs) > 1:
        metrics |= {f"{key}.std": float(np.std([run[key] for run in runs], ddof=1)) for key in keys}
    return metrics | {"seeds": len(runs)}


def table(metrics: Mapping[str, float], prefix: str = "") -> str:
    """Validation and test side by side; `prefix` is what the keys of a label begin with."""
    metrics = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
    columns = [name for name in SHOWN if f"valid.{name}" in metrics or f"test.{name}" in metrics]
    lines = ["        " + "".join(name.rjust(13) for name in columns)]
    for split in ("valid", "test"):
        if f"{split}.auc" in metrics:
            values = (metrics.get(f"{split}.{name}", math.nan) for name in columns)
            cells = "".join(f"{value:13.4f}" if math.isfinite(value) else "undefined".rjust(13) for value in values)
            lines.append(f"  {split.ljust(6)}{cells}")
    return "\n".join(lines)
