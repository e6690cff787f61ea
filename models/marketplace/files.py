"""A simulated marketplace on disk: what `adrank prepare` reads.

marketplace.json    the MarketplaceSpec: the whole world can be rebuilt from it
dataset.yaml        the DatasetSpec
ads.parquet         ad_id, category, brand, advertiser, price_level, quality, bid; scenes and regions (lists, empty is
                    everywhere) where some ads are targeted; image where there are images
images/             where there are images: ids.npy, vectors.npy float16, a row an image
users.parquet       user_id, age_band, gender, city, spending, initial_history (ad ids, oldest first)
log/NNNNN.parquet   user_id, ad_id, request_id, time_ms, scene, position, click, true_ctr; in order of time; region,
                    where some ads are targeted; like and true_like, where there are likes
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bundle.schema import Kind
from models.data.spec import (
    DatasetSpec,
    FeatureColumn,
    HistoryColumn,
    LabelColumn,
    SplitSpec,
    TargetingRule,
    VectorFiles,
)
from models.marketplace.log import DAY_MS, Round, simulate
from models.marketplace.spec import AGE_BANDS, GENDERS, MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import World, ad_ids, build_world, image_ids, user_ids

ROWS_A_FILE = 1_000_000
ROWS_A_GROUP = 1 << 18
"""Users and ads are written in row groups of this many: bounds the temporary columns to some 100 MB."""
TRAIN_SHARE, VALID_SHARE = 0.8, 0.1


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and the test part for its best possible AUC."""

    requests: int
    impressions: int
    clicks: int
    test_clicks: npt.NDArray[np.bool_]
    test_truth: npt.NDArray[np.float32]


def dataset_spec(spec: MarketplaceSpec) -> DatasetSpec:
    """The description of the simulated log, split by time 80 : 10 : 10."""
    span = spec.days * DAY_MS

    def categorical(column: str, *, filterable: bool = False) -> FeatureColumn:
        return FeatureColumn(column=column, filter=filterable)

    files = VectorFiles(ids="images/ids.npy", vectors="images/vectors.npy")
    images = (FeatureColumn(column="image", vectors=files),) if spec.images else ()
    return DatasetSpec(
        name="marketplace",
        source="table",
        files={"log": "log/*.parquet", "users": "users.parquet", "ads": "ads.parquet"},
        label="click",
        user="user_id",
        ad="ad_id",
        time="time_ms",
        request=("request_id",),
        position="position",
        bid="bid",
        truth="true_ctr",
        labels={"like": LabelColumn(column="like", truth="true_like")} if spec.likes else {},
        user_features=tuple(categorical(column) for column in ("age_band", "gender", "city", "spending")),
        context_features=(categorical("scene"),),
        ad_features=(
            categorical("ad_id"),
            categorical("category", filterable=True),
            categorical("brand", filterable=True),
            categorical("advertiser"),
            categorical("price_level", filterable=True),
            FeatureColumn(column="quality", kind=Kind.NUMBER),
            *images,
        ),
        histories=(
            HistoryColumn(
                name="clicks",
                source="log",
                column="initial_history",
                fields=("ad_id", "category", "brand", *(feature.column for feature in images)),
                max_length=spec.history_length,
            ),
        ),
        targeting=(
            (TargetingRule(context="scene", ad="scenes"), TargetingRule(context="region", ad="regions"))
            if spec.targeted
            else ()
        ),
        split=SplitSpec(
            valid_from=spec.start_ms + int(span * TRAIN_SHARE),
            test_from=spec.start_ms + int(span * (TRAIN_SHARE + VALID_SHARE)),
        ),
    )


def write_marketplace(spec: MarketplaceSpec, folder: Path, progress: Callable[[int], object]) -> Written:
    """Simulate a marketplace and write it into `folder`, which appears only when complete.

    `progress` is told the impressions of each round. FileExistsError when the folder exists. Memory holds the world,
    the users' histories, one round, at most one file of the log, and labels and truth of the test part.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists: choose another folder, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        world = build_world(spec)
        histories = world.first_histories()
        _write_groups(building / "ads.parquet", _ads(world))
        _write_groups(building / "users.parquet", _users(world, histories))
        if world.looks is not None:
            (building / "images").mkdir()
            np.save(building / "images/ids.npy", image_ids(np.arange(spec.ads)))
            np.save(building / "images/vectors.npy", world.looks.images)
        written = _write_log(Truth(world), histories, building / "log", progress)
        (building / "marketplace.json").write_text(spec.model_dump_json(indent=2) + "\n")
        description = dataset_spec(spec).model_dump(mode="json", exclude_defaults=True)
        (building / "dataset.yaml").write_text(
            "# Simulated: a marketplace made by `adrank marketplace`, see marketplace.json for its sizes and effects.\n"
            + yaml.safe_dump(description, sort_keys=False)
        )
        building.chmod(0o755)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return written


def _write_log(
    truth: Truth, histories: npt.NDArray[np.int32], folder: Path, progress: Callable[[int], object]
) -> Written:
    spec = truth.world.spec
    test_from = dataset_spec(spec).split.test_from or 0
    folder.mkdir()
    frames: list[pl.DataFrame] = []
    tests: list[Round] = []
    files = rows = clicks = 0

    def flush() -> None:
        nonlocal files
        if frames:
            pl.concat(frames).write_parquet(folder / f"{files:05d}.parquet")
            frames.clear()
            files += 1

    for each in simulate(truth, histories):
        frames.append(each.frame(spec))
        rows += each.ads.size
        clicks += int(each.clicks.sum())
        if each.time_ms[-1] >= test_from:
            tests.append(each)
        if sum(map(len, frames)) >= ROWS_A_FILE:
            flush()
        progress(each.ads.size)
    flush()
    return Written(
        requests=spec.requests,
        impressions=rows,
        clicks=clicks,
        test_clicks=np.concatenate([np.zeros(0, np.bool_), *(r.clicks[r.time_ms >= test_from].ravel() for r in tests)]),
        test_truth=np.concatenate(
            [np.zeros(0, np.float32), *(r.true_ctr[r.time_ms >= test_from].ravel() for r in tests)]
        ),
    )


def _write_groups(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _groups(n: int) -> Iterator[npt.NDArray[np.int64]]:
    return (np.arange(first, min(first + ROWS_A_GROUP, n)) for first in range(0, n, ROWS_A_GROUP))


def _ads(world: World) -> Iterator[pa.Table]:
    ads = world.ads
    for rows in _groups(world.spec.ads):
        yield pa.table(
            {
                "ad_id": ad_ids(rows),
                "category": ads.category[rows],
                "brand": ads.brand[rows],
                "advertiser": ads.advertiser[rows],
                "price_level": ads.price[rows],
                "quality": ads.quality[rows],
                "bid": ads.bid[rows],
                **_targets(world, rows),
                **({"image": image_ids(rows)} if world.looks is not None else {}),
            }
        )


def _targets(world: World, rows: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
    """Lists of the scenes and regions of each ad, empty where it may be shown in all of them."""
    if world.targets is None:
        return {}
    columns: dict[str, pa.Array] = {}
    for name, names in (("scenes", world.spec.scenes), ("regions", world.spec.regions)):
        bits = getattr(world.targets, name)[rows, None] >> np.arange(len(names)) & 1
        listed = bits * (bits.sum(axis=1, keepdims=True) < len(names)) > 0
        offsets = np.concatenate(([0], np.cumsum(listed.sum(axis=1)))).astype(np.int32)
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.array(names)[listed.nonzero()[1]]))
    return columns


def _users(world: World, histories: npt.NDArray[np.int32]) -> Iterator[pa.Table]:
    users = world.users
    cities = np.array([f"city-{i:03d}" for i in range(world.spec.cities)])
    for rows in _groups(world.spec.users):
        mine = histories[rows]
        there = mine >= 0
        offsets = np.concatenate(([0], np.cumsum(there.sum(axis=1)))).astype(np.int32)
        yield pa.table(
            {
                "user_id": user_ids(rows),
                "age_band": np.array(AGE_BANDS)[users.age[rows]],
                "gender": np.array(GENDERS)[users.gender[rows]],
                "city": cities[users.city[rows]],
                "spending": users.spending[rows],
                "initial_history": pa.ListArray.from_arrays(pa.array(offsets), pa.array(ad_ids(mine[there]))),
            }
        )
