"""A simulated log of KuaiRand's shape twice on disk: request-grouped as our training reads it, and as flat rows, the
form that other libraries take. The same impressions in both, none of them twice.

KuaiRand's: 30 fields of a user, one of them the id, 2 of a request, 5 of a video (3 of them in the history), sizes of
vocabularies, and lengths of histories (half are at most 16, a tenth full; 20 on average). Tags have one value each, as
other libraries' sequences take no more. Click rates depend on the video and on whether its tag is one that the user
watches, so that there is something to learn.
"""

import json
from dataclasses import asdict, dataclass
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

USERS, VIDEOS, AUTHORS, TAGS, LONGEST = 19_000, 7_500, 6_400, 60, 50
USER_FIELDS = {"user_id": USERS} | {
    f"user_{i}": size for i, size in enumerate([10, 4, 8, 8, 8, 8, 8, 10, 12, 12, 920, 40, 17, 30] + [6] * 15)
}
CONTEXT_FIELDS = {"tab": 15, "hour": 24}
VIDEO_FIELDS = {"video": VIDEOS, "author": AUTHORS, "duration": 20, "upload": 12, "tag": TAGS}
HISTORY = ("video", "author", "tag")
SPLITS = ("train", "valid")
Ids = npt.NDArray[np.int32]


def schema() -> FeatureSchema:
    """All fields, and a history of videos."""

    def side(sizes: dict[str, int]) -> Side:
        fields = (
            FieldSpec(name=name, kind=Kind.CATEGORICAL, vocabulary=name, size=size + FIRST_KNOWN)
            for name, size in sizes.items()
        )
        return Side(fields=tuple(fields))

    return FeatureSchema(
        user_key="user_id", ad_key="video", user=side(USER_FIELDS), context=side(CONTEXT_FIELDS), ad=side(VIDEO_FIELDS),
        histories=(HistorySpec(name="clicks", fields=HISTORY, max_length=LONGEST),),
    )  # fmt: skip


def catalogue() -> Ids:
    """[VIDEOS + FIRST_KNOWN, 5]: what a video is; its row is its id."""
    random = np.random.default_rng(0)
    rows = VIDEOS + FIRST_KNOWN
    others = [random.integers(FIRST_KNOWN, size + FIRST_KNOWN, rows) for size in list(VIDEO_FIELDS.values())[1:]]
    found = np.column_stack([np.arange(rows), *others]).astype(np.int32)
    found[:FIRST_KNOWN] = np.arange(FIRST_KNOWN)[:, None]
    return found


@dataclass(frozen=True, slots=True)
class Log:
    """R requests."""

    user: Ids
    """[R, 30]"""
    context: Ids
    """[R, 2]"""
    history: Ids
    """[R, LONGEST] videos, 0 where there is none"""
    ads: Ids
    """[R, shown] videos"""
    labels: npt.NDArray[np.int8]
    """[R, shown]"""


def simulate(impressions: int, shown: int, *, full: bool, seed: int = 0) -> Log:
    """`impressions` / `shown` requests; `full`: every history has all of its LONGEST behaviours."""
    random, requests = np.random.default_rng(seed), impressions // shown
    tags = catalogue()[:, list(VIDEO_FIELDS).index("tag")]
    order = np.argsort(tags[FIRST_KNOWN:], kind="stable") + FIRST_KNOWN  # videos by tag
    ends = np.cumsum(np.bincount(tags[FIRST_KNOWN:], minlength=TAGS + FIRST_KNOWN))
    lengths = np.full(requests, LONGEST) if full else 1 + random.exponential(22, requests).astype(int).clip(max=49)
    taste = random.integers(FIRST_KNOWN, TAGS + FIRST_KNOWN, (requests, 3))
    watched = np.take_along_axis(taste, random.integers(0, 3, (requests, LONGEST)), axis=1)
    first, behind = ends[watched - 1], ends[watched]
    history = order[first + (random.random((requests, LONGEST)) * (behind - first)).astype(int)]
    history[np.arange(LONGEST) >= lengths[:, None]] = 0
    ads = random.integers(FIRST_KNOWN, VIDEOS + FIRST_KNOWN, (requests, shown))
    liked = (tags[ads][..., None] == taste[:, None, :]).any(-1)
    lucky = (random.random((requests, shown)) < 0.3) & ~liked  # a third of what is shown is of the user's tags
    ads[lucky] = order[ends[taste[:, 0]] - 1].repeat(shown).reshape(requests, shown)[lucky]
    liked |= lucky
    quality = np.random.default_rng(1).normal(0.0, 1.0, VIDEOS + FIRST_KNOWN)
    clicked = random.random((requests, shown)) < 1 / (1 + np.exp(1.0 - 2.0 * liked - quality[ads]))

    def draw(sizes: dict[str, int]) -> Ids:
        columns = [random.integers(FIRST_KNOWN, size + FIRST_KNOWN, requests) for size in sizes.values()]
        return np.column_stack(columns).astype(np.int32)

    return Log(
        draw(USER_FIELDS), draw(CONTEXT_FIELDS), history.astype(np.int32), ads.astype(np.int32), clicked.astype(np.int8)
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """Requests and impressions of both splits, kept as sizes.json."""

    train: tuple[int, int]
    valid: tuple[int, int]


def write(log: Log, folder: Path, valid: int) -> None:
    """Both forms; the last `valid` requests are the validation split. Flat rows are in random order."""
    shown, cut = log.ads.shape[1], len(log.user) - valid
    flat: dict[str, npt.NDArray[np.generic]] = {}
    for split, rows in zip(SPLITS, (slice(0, cut), slice(cut, None)), strict=True):
        part = Log(log.user[rows], log.context[rows], log.history[rows], log.ads[rows], log.labels[rows])
        _write_grouped(part, folder / split)
        flat |= {f"{split}.{name}": values for name, values in flat_rows(part).items()}
    np.savez(folder / "flat.npz", allow_pickle=False, **flat)
    sizes = Sizes((cut, cut * shown), (valid, valid * shown))
    (folder / "sizes.json").write_text(json.dumps(asdict(sizes)))
    fields = USER_FIELDS | CONTEXT_FIELDS | VIDEO_FIELDS
    told = {"fields": {name: size + FIRST_KNOWN for name, size in fields.items()}, "history": HISTORY}
    (folder / "fields.json").write_text(json.dumps(told | {"longest": LONGEST}))


def _write_grouped(log: Log, folder: Path) -> None:
    folder.mkdir(parents=True)
    lengths = (log.history != 0).sum(1)
    table = pa.table(
        {
            "user": pa.array(log.user[:, 0].astype(np.int64)),
            "time": pa.array(np.arange(len(log.user))),
            "user_ids": pa.FixedSizeListArray.from_arrays(pa.array(log.user.ravel()), log.user.shape[1]),
            "context_ids": pa.FixedSizeListArray.from_arrays(pa.array(log.context.ravel()), log.context.shape[1]),
            "history_clicks": _lists(log.history[log.history != 0], lengths),
            "ads": _lists(log.ads.ravel(), np.full(*log.ads.shape)),
            "labels": _lists(log.labels.ravel(), np.full(*log.labels.shape)),
        }
    )
    pq.write_table(table, folder / "part-00000.parquet", row_group_size=GROUP_ROWS, compression="zstd")


def _lists(values: npt.NDArray[np.generic], lengths: npt.NDArray[np.int64]) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def flat_rows(log: Log) -> dict[str, npt.NDArray[np.generic]]:
    """One row an impression: each field [N], the history's as history.FIELD [N, LONGEST], `length` and `labels`."""
    requests, shown = log.ads.shape
    order = np.random.default_rng(0).permutation(requests * shown)
    request, videos = order // shown, catalogue()
    history = log.history[request]
    found: dict[str, npt.NDArray[np.generic]] = {
        "length": (history != 0).sum(1).astype(np.int64),
        "labels": log.labels.ravel()[order].astype(np.float32),
    }
    for names, ids in (
        (USER_FIELDS, log.user[request]),
        (CONTEXT_FIELDS, log.context[request]),
        (VIDEO_FIELDS, videos[log.ads.ravel()[order]]),
    ):
        found |= {name: ids[:, column].astype(np.int64) for column, name in enumerate(names)}
    for column, name in enumerate(VIDEO_FIELDS):
        if name in HISTORY:
            found[f"history.{name}"] = videos[:, column][history].astype(np.int64)
    return found


def described(folder: Path) -> PreparedData:
    """The grouped form that `write` left, as training wants it."""
    sizes = Sizes(**json.loads((folder / "sizes.json").read_text()))
    spec = DatasetSpec(
        name="train", source="table", label="click", user="user_id", ad="video", time="time",
        ad_features=(FeatureColumn(column="video"),),
    )  # fmt: skip
    splits = {
        name: SplitSize(requests=requests, impressions=impressions, clicks=0)
        for name, (requests, impressions) in asdict(sizes).items()
    }
    prepared = Prepared(spec=spec, features=schema(), users=USERS, splits=splits, fingerprint="")
    videos = catalogue()
    numbers, ones = np.zeros((len(videos), 0), dtype=np.float32), np.ones(len(videos), dtype=np.float32)
    return PreparedData(folder, prepared, PreparedAds(Vocabulary.of(list(range(VIDEOS))), videos, numbers, ones), {})
