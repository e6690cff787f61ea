"""A tiny simulated marketplace, prepared and trained on once: what model, export and end-to-end tests share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from export.assemble import Trained
from export.demo import main
from models.checkpoint import open_checkpoint
from models.config import TrainConfig
from models.data.prepare import prepare, prepared_folder
from models.data.prepared import PreparedData, open_prepared
from models.data.spec import read_spec
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from models.train import train_one

SPEC = MarketplaceSpec(
    seed=5,
    ads=300,
    users=200,
    impressions=6_000,
    categories=6,
    brands=30,
    advertisers=40,
    cities=8,
    days=5,
    targeted=0.4,
    likes=0.2,
    images=6,
)
PARTS = 3
QSCORE: dict[str, Any] = {"kind": "qscore"}
DQM: dict[str, Any] = {"kind": "dqm", "embedding": 4, "dimension": 6, "hidden": [12]}
DIN: dict[str, Any] = {
    "kind": "din",
    "embedding": 4,
    "attention_hidden": [6, 3],
    "hidden": [12, 6],
    "dropout": 0.2,
    "position_bias": True,
}


@dataclass(frozen=True)
class Market:
    """Where the raw files are, where prepared data are kept, and the data."""

    raw: Path
    root: Path
    data: PreparedData


@dataclass(frozen=True)
class Demo:
    """What `adrank demo` left in a folder."""

    out: Path
    bundle: Path
    raw: Path
    data: PreparedData
    trained: Trained


def make_market(folder: Path) -> Market:
    """Simulate and prepare, in several parts; where `adrank train` would look for it."""
    torch.set_num_threads(1)
    raw, root = folder / "raw", folder / "data"
    write_marketplace(SPEC, raw, lambda _: None)
    spec = read_spec(raw / "dataset.yaml")
    data = prepare(spec, raw, prepared_folder(spec, raw, root), partitions=PARTS, progress=False)
    return Market(raw, root, data)


def make_config(name: str, model: dict[str, Any], **training: Any) -> TrainConfig:
    """A configuration over the marketplace; a large learning rate, because there is little to learn from."""
    settings = {"epochs": 2, "batch_size": 512, "learning_rate": 0.01, "evaluations": 2, "patience": 9} | training
    return TrainConfig.model_validate(
        {"name": name, "dataset": "dataset.yaml", "model": model, "training": settings if model != QSCORE else {}}
    )


def train_all(market: Market, folder: Path) -> Trained:
    """A checkpoint of each stage."""
    checkpoints = []
    for model in (DIN, DQM, QSCORE):
        kind = model["kind"]
        train_one(make_config(f"tiny-{kind}", model), market.data, folder / kind, seed=1, progress=False)
        checkpoints.append(open_checkpoint(folder / kind))
    return Trained(market.data, *checkpoints)


def make_demo(out: Path) -> Demo:
    """`adrank demo` with the configurations of the project, at a small size."""
    sizes = ["--ads", "300", "--users", "200", "--impressions", "6000"]
    assert main(["--out", str(out), "--id", "small", *sizes, "--seed", "3", "--threads", "1"]) == 0
    (raw,) = (out / "marketplace").iterdir()
    (folder,) = (path.parent for path in (out / "data").glob("*/schema.json"))
    data = open_prepared(folder)
    checkpoints = {path.name.rpartition("-")[2]: open_checkpoint(path) for path in (out / "checkpoints").iterdir()}
    trained = Trained(data, checkpoints["rocket"], checkpoints["dqm"], checkpoints["qscore"])
    return Demo(out, out / "bundles" / "small", raw, data, trained)
