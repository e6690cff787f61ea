"""A shop whose second half brings new ads, brands, words, cities and scenes: what continued training is tested on."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.checkpoint import Checkpoint, open_checkpoint
from models.config import TrainConfig
from models.data.base import Base
from models.data.prepare import prepare
from models.data.prepared import PreparedData
from models.data.spec import DatasetSpec
from models.train import train_one

HALF, ROWS = 1_500, 3_000
"""Row r is at time r. Before HALF there are only odd ads, so that new values come to stand between the old ones."""
DIN: dict[str, Any] = {"kind": "din", "embedding": 3, "attention_hidden": [5, 3], "hidden": [8, 4], "dropout": 0.1}
GWEN: dict[str, Any] = {"kind": "gwen", "embedding": 3, "hidden": [8], "position_bias": True}
DQM: dict[str, Any] = {"kind": "dqm", "embedding": 3, "dimension": 4, "hidden": [6]}
TRAINING: dict[str, Any] = {"batch_size": 100, "learning_rate": 0.02, "unknown_rate": 0.1, "averaging": 0.9}


def write_shop(folder: Path) -> Path:
    """The raw files."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(4)
    late = np.arange(ROWS) >= HALF
    user = np.where(late, random.integers(0, 60, ROWS), random.integers(0, 20, ROWS) * 3)
    ad = np.where(late, random.integers(0, 80, ROWS), random.integers(0, 20, ROWS) * 4 + 1)
    scene = np.where(late, random.integers(0, 5, ROWS), random.integers(0, 2, ROWS) * 2 + 1)
    log = {
        "user": user,
        "ad": ad,
        "time": np.arange(ROWS),
        "click": (random.random(ROWS) < 0.2 + 0.4 * (ad % 3 == 1)).astype(np.int64),
        "scene": [f"scene-{each}" for each in scene],
        "hour": random.normal(np.where(late, 20.0, 5.0), 3.0),
    }
    pl.DataFrame(log).write_parquet(folder / "log.parquet")
    users = {"user": range(60), "city": [f"city-{each % 7}" for each in range(60)], "age": [20 + u for u in range(60)]}
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    brands = [f"{'b' * (1 + each % 2 * 2)}{each % 11}" for each in range(80)]
    words = [f"w{each % 5} w{each % 9}" for each in range(80)]
    ads = {"ad": range(80), "brand": brands, "words": words, "price": [float(each) for each in range(80)]}
    pl.DataFrame(ads).write_parquet(folder / "ads.parquet")
    return folder


def description(valid_from: int, until: int | None, **changes: Any) -> DatasetSpec:
    """The shop up to a time."""
    content: dict[str, Any] = {
        "name": "shop",
        "source": "table",
        "files": {"log": "log.parquet", "users": "users.parquet", "ads": "ads.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "user_features": [{"column": "city"}, {"column": "age", "kind": "bucketed", "buckets": 4}],
        "context_features": [{"column": "scene"}, {"column": "hour", "kind": "number"}],
        "ad_features": [
            {"column": "ad"},
            {"column": "brand"},
            {"column": "words", "kind": "multivalued", "separator": " ", "max_values": 2},
            {"column": "price", "kind": "bucketed", "buckets": 5},
        ],
        "histories": [{"name": "clicks", "source": "log", "fields": ["ad", "brand", "words"], "max_length": 6}],
        "split": {"valid_from": valid_from, "until": until},
    }
    return DatasetSpec.model_validate(content | changes)


def early(raw: Path, out: Path) -> PreparedData:
    """The first half."""
    return prepare(description(HALF - 200, HALF), raw, out, partitions=2, progress=False)


def late(raw: Path, out: Path, base: Base | None, **changes: Any) -> PreparedData:
    """All of it."""
    return prepare(description(ROWS - 200, None, **changes), raw, out, partitions=3, progress=False, base=base)


def config(model: dict[str, Any], name: str = "shop", **training: Any) -> TrainConfig:
    """A configuration over the shop."""
    settings = TRAINING | training if model["kind"] != "qscore" else {}
    return TrainConfig.model_validate({"name": name, "dataset": "shop.yaml", "model": model, "training": settings})


def trained(model: dict[str, Any], data: PreparedData, folder: Path, **training: Any) -> Checkpoint:
    """A finished run."""
    train_one(config(model, **training), data, folder, seed=1, progress=False)
    return open_checkpoint(folder)
