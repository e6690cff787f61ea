"""Training day by day: each day from scratch on everything before it, against yesterday's network and yesterday's rows.

A day is 24 hours from the log's first row on; the last one takes what is left of less than half a day. For each day d
from the third on, three networks are measured on the rows of day d, which none of them has seen:

scratch     one epoch over all rows before d
continued   the continued network of day d - 1, and one epoch over the rows of day d - 1
stale       the continued network of day d - 1 as it is

One epoch has one evaluation, so nothing is chosen on day d. Seconds are processor time of the whole run: the start, its
steps and the evaluation; of `stale` the evaluation alone. Preparing the data is not in them.
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import Report, Table
from models.checkpoint import Checkpoint, begin, open_checkpoint, write_json
from models.config import ConfigError, TrainConfig, read_config, read_dataset
from models.continuing import base_of, continue_network, identity
from models.data import columns
from models.data.batches import count, recent
from models.data.prepare import READERS, prepare
from models.data.prepared import PreparedData
from models.data.readers.raw import CHUNK_ROWS
from models.data.spec import DataError, DatasetSpec, SplitSpec
from models.evaluation import evaluate, network_scorer
from models.labels import labelled
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.networks.config import NetworkConfig, QscoreConfig
from models.networks.registry import build
from models.numerics import computing
from models.training import train

CONFIGS = Path("models/configs")
DAY_MS = 86_400_000
WAYS = {"scratch": "from scratch", "continued": "continued", "stale": "not updated"}
QUICK = MarketplaceSpec(seed=1, ads=500, users=1_000, impressions=100_000, days=5)


@dataclass(frozen=True, slots=True)
class Log:
    """A log, cut into days."""

    config: TrainConfig
    model: NetworkConfig
    spec: DatasetSpec
    folder: Path
    starts: list[int]
    """First time of each day, and the time after the last row, in the log's own times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one way reached on one day."""

    auc: float
    gauc: float
    rows: int
    """Trained on."""
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which log, and which network."""
    parser.add_argument("--data", type=Path, default=Path("../shared/data/kuairand"), metavar="DIR", help="raw files")
    parser.add_argument("--config", type=Path, default=CONFIGS / "kuairand-din.yaml", metavar="FILE", help="network")
    parser.add_argument("--days", type=int, metavar="N", help="only the first so many days (default all)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of all networks (default 1)")


def run(arguments: argparse.Namespace) -> Report:
    """`daily.<way>.auc`, `.gauc` (mean of days), `.seconds` (of all days); `daily.gain.auc`: continued - scratch.

    With --quick a small simulated marketplace in place of --data. ValueError when something cannot be used.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="adrank-daily-") as temporary, computing(1):
            work = Path(temporary)
            data, config = arguments.data, arguments.config
            if arguments.quick:
                data, config = work / "marketplace", CONFIGS / "marketplace-din.yaml"
                write_marketplace(QUICK, data, lambda _: None)
            return report(compare(cut(config, data), work, arguments.seed, arguments.days))
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error


def cut(path: Path, folder: Path) -> Log:
    """The log in `folder`, cut into days. DataError when there are fewer than three."""
    config = read_config(path)
    if isinstance(config.model, QscoreConfig):
        raise ConfigError(f"{path}: a Qscore is counted, there is no training to compare")
    spec = read_dataset(path, config, folder)
    raw = READERS[spec.source].open(spec, folder, CHUNK_ROWS)
    day = DAY_MS // raw.time_unit_ms
    first, last = _span(spec, folder)
    days = max(1, round((last + 1 - first) / day))
    if days < 3:
        raise DataError(f"{folder}: its rows span {(last + 1 - first) / day:.1f} days, at least 3 are needed")
    training = config.training.model_copy(update={"epochs": 1, "evaluations": 1})
    starts = [first + day * number for number in range(days)] + [last + 1]
    return Log(config.model_copy(update={"training": training}), config.model, spec, folder, starts)


def compare(log: Log, work: Path, seed: int, days: int | None = None) -> list[dict[str, Outcome]]:
    """By day, from the third on: what each way reached."""
    first = _prepared(log, 1, work)
    yesterday, _ = _trained(log, first, work / "first", seed)
    shutil.rmtree(first.folder)  # what follows needs the checkpoint alone
    found = []
    for day in range(2, min(len(log.starts) - 1, days or len(log.starts))):
        data = _prepared(log, day, work)
        _, scratch = _trained(log, data, work / f"scratch-{day}", seed)
        shutil.rmtree(data.folder)
        data = _prepared(log, day, work, yesterday)
        stale = _as_it_is(log, data, yesterday)
        data = recent(data, log.starts[day - 1])
        yesterday, continued = _trained(log, data, work / f"continued-{day}", seed, yesterday)
        shutil.rmtree(data.folder)
        found.append({"scratch": scratch, "continued": continued, "stale": stale})
        said = "  ".join(f"{WAYS[way]} {each.auc:.4f} ({each.seconds:.0f} s)" for way, each in found[-1].items())
        print(f"day {day + 1}: AUC {said}", flush=True)
    return found


def report(days: list[dict[str, Outcome]]) -> Report:
    """The days as a table, figures and curves."""
    result = Report("daily")
    rows: list[tuple[str | int | float, ...]] = []
    for number, day in enumerate(days, start=3):
        trained = [day[way].rows for way in ("scratch", "continued")]
        quality = [f"{getattr(day[way], name):.4f}" for name in ("auc", "gauc") for way in WAYS]
        rows.append((number, *trained, *quality, *(f"{day[way].seconds:.1f}" for way in WAYS)))
    means = {
        (name, way): float(np.mean([getattr(day[way], name) for day in days]))
        for name in ("auc", "gauc")
        for way in WAYS
    }
    total = {way: sum(day[way].seconds for day in days) for way in WAYS}
    trained = [sum(day[way].rows for day in days) for way in ("scratch", "continued")]
    rows.append(
        ("all", *trained, *(f"{mean:.4f}" for mean in means.values()), *(f"{each:.1f}" for each in total.values()))
    )
    for way, label in WAYS.items():
        result.figures |= {f"daily.{way}.{name}": means[name, way] for name in ("auc", "gauc")}
        result.figures[f"daily.{way}.seconds"] = total[way]
        for name in ("auc", "gauc", "seconds"):
            points = [(float(number), getattr(day[way], name)) for number, day in enumerate(days, start=3)]
            result.series[f"daily.{name}.{label}"] = points
    for name in ("auc", "gauc"):
        gains = np.array([getattr(day["continued"], name) - getattr(day["scratch"], name) for day in days])
        result.figures[f"daily.gain.{name}"] = float(gains.mean())
        if len(gains) > 1:
            result.figures[f"daily.gain.{name}.error"] = float(gains.std(ddof=1) / len(gains) ** 0.5)
    result.figures["daily.speedup"] = total["scratch"] / total["continued"]
    heads = [f"{name} {label}" for name in ("AUC", "GAUC") for label in WAYS.values()]
    heads = ["day", "rows, scratch", "rows, continued", *heads, *(f"s {label}" for label in WAYS.values())]
    result.tables.append(Table("Each day's rows by networks that have not seen them", tuple(heads), rows))
    return result


def _span(spec: DatasetSpec, folder: Path) -> tuple[int, int]:
    """First and last time of a log."""
    first, last = [], []
    for chunk in READERS[spec.source].open(spec, folder, CHUNK_ROWS).log.chunks():
        times = columns.time(chunk.frame[spec.time], f"{chunk.file}: column {spec.time!r}", chunk.first_row).to_numpy()
        first.append(int(times.min()))
        last.append(int(times.max()))
    return min(first), max(last)


def _prepared(log: Log, day: int, work: Path, yesterday: Checkpoint | None = None) -> PreparedData:
    """Everything before a day as training, the day as validation."""
    split = SplitSpec(valid_from=log.starts[day], until=log.starts[day + 1])
    base = None if yesterday is None else base_of(yesterday)
    spec = log.spec.model_copy(update={"split": split})
    return labelled(log.config, prepare(spec, log.folder, work / "data", progress=False, base=base))


def _trained(
    log: Log, data: PreparedData, folder: Path, seed: int, earlier: Checkpoint | None = None
) -> tuple[Checkpoint, Outcome]:
    """One epoch, measured on the day that is the validation split."""
    begin(folder, log.config, data, seed, identity(log.config, earlier))
    started = time.process_time()
    train(log.config, log.model, data, folder, seed, progress=False, earlier=earlier)
    seconds = time.process_time() - started
    found = json.loads((folder / "training.jsonl").read_text().splitlines()[-1])
    write_json(folder / "metrics.json", {"valid.auc": found["auc"], "valid.gauc": found["gauc"]})
    return open_checkpoint(folder), Outcome(found["auc"], found["gauc"], count(data, "train"), seconds)


def _as_it_is(log: Log, data: PreparedData, yesterday: Checkpoint) -> Outcome:
    """Yesterday's network on the day's rows."""
    started = time.process_time()
    torch.manual_seed(0)
    network = build(log.model, data.schema)
    continue_network(network, data, yesterday)
    found = evaluate(network_scorer(network), data, "valid")
    return Outcome(found["auc"], found["gauc"], 0, time.process_time() - started)
