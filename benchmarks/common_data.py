"""A simulated click log twice on disk, as training reads it: requests grouped, and one impression a request with its
user repeated. What is in it is random; only sizes matter."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bundle.schema import FIRST_KNOWN, FeatureSchema, FieldSpec, HistorySpec, Kind, Side
from bundle.vocabulary import Vocabulary
from models.data.prepared import Prepared, PreparedAds, PreparedData, SplitSize
from models.data.requests import GROUP_ROWS
from models.data.spec import DatasetSpec, FeatureColumn

USER_FIELDS, FEW, LENGTH = 20, 50, 50
"""Fields of a user beside the id, values of each; behaviours of every user."""
ADS, CATEGORIES = 5_000, 100
PART = "train/part-00000.parquet"
Ids = npt.NDArray[np.int32]


def _field(name: str, values: int) -> FieldSpec:
    return FieldSpec(name=name, kind=Kind.CATEGORICAL, vocabulary=name, size=values + FIRST_KNOWN)


def schema(users: int) -> FeatureSchema:
    """The user's id and 20 small fields, a scene, the ad's id and category, and a history of both."""
    small = tuple(_field(f"user_{i}", FEW) for i in range(USER_FIELDS))
    return FeatureSchema(
        user_key="user",
        ad_key="ad",
        user=Side(fields=(_field("user", users), *small)),
        context=Side(fields=(_field("scene", 10),)),
        ad=Side(fields=(_field("ad", ADS), _field("category", CATEGORIES))),
        histories=(HistorySpec(name="clicks", fields=("ad", "category"), max_length=LENGTH),),
    )


@dataclass(frozen=True, slots=True)
class Log:
    """One request a user with `shown` ads."""

    user: Ids
    """[users, fields]"""
    context: Ids
    history: Ids
    """[users, LENGTH] catalogue rows"""
    ads: Ids
    """[users, shown] catalogue rows"""
    labels: npt.NDArray[np.int8]


def simulate(impressions: int, shown: int, seed: int = 0) -> Log:
    """`impressions` / `shown` users."""
    random, users = np.random.default_rng(seed), impressions // shown
    small = random.integers(FIRST_KNOWN, FEW + FIRST_KNOWN, (users, USER_FIELDS))
    return Log(
        user=np.column_stack([np.arange(users) + FIRST_KNOWN, small]).astype(np.int32),
        context=random.integers(FIRST_KNOWN, 10 + FIRST_KNOWN, (users, 1)).astype(np.int32),
        history=random.integers(FIRST_KNOWN, ADS + FIRST_KNOWN, (users, LENGTH)).astype(np.int32),
        ads=random.integers(FIRST_KNOWN, ADS + FIRST_KNOWN, (users, shown)).astype(np.int32),
        labels=(random.random((users, shown)) < 0.2).astype(np.int8),
    )


def write(log: Log, folder: Path, *, flat: bool) -> None:
    """The log as a prepared dataset's training split. Flat rows are in random order, as a log in the order of time has
    other users between two impressions of one."""
    users, shown = log.ads.shape
    row = np.arange(users)
    ads, labels = log.ads, log.labels
    if flat:
        order = np.random.default_rng(0).permutation(users * shown)
        row, ads, labels = order // shown, ads.reshape(-1, 1)[order], labels.reshape(-1, 1)[order]
    table = pa.table(
        {
            "user": pa.array(row.astype(np.int64)),
            "time": pa.array(np.arange(len(row))),
            "user_ids": _fixed(log.user[row]),
            "context_ids": _fixed(log.context[row]),
            "history_clicks": _lists(log.history[row], pa.int32()),
            "ads": _lists(ads, pa.int32()),
            "labels": _lists(labels, pa.int8()),
        }
    )
    (folder / "train").mkdir(parents=True)
    pq.write_table(table, folder / PART, row_group_size=GROUP_ROWS, compression="zstd")


def described(folder: Path, users: int, impressions: int) -> PreparedData:
    """A folder that `write` filled, as training wants it."""
    spec = DatasetSpec(
        name="common", source="table", label="click", user="user", ad="ad", time="time",
        ad_features=(FeatureColumn(column="ad"),),
    )  # fmt: skip
    size = SplitSize(requests=users, impressions=impressions, clicks=0)
    prepared = Prepared(spec=spec, features=schema(users), users=users, splits={"train": size}, fingerprint="")
    rows = np.arange(ADS + FIRST_KNOWN, dtype=np.int32)
    fields = np.column_stack([rows, np.where(rows < FIRST_KNOWN, rows, rows % CATEGORIES + FIRST_KNOWN)])
    numbers = np.zeros((len(rows), 0), dtype=np.float32)
    ads = PreparedAds(Vocabulary.of(list(range(ADS))), fields, numbers, np.ones(len(rows), dtype=np.float32))
    return PreparedData(folder, prepared, ads, {})


def _fixed(values: Ids) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _lists(values: npt.NDArray[np.generic], dtype: pa.DataType) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel(), type=dtype))
