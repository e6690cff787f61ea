"""The whole preparation over plain tables: what comes out, decoded, equals what a plain loop makes of what went in."""

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bundle.encoding import Encoder
from bundle.record import encode_history
from models.data import prepare as prepare_module
from models.data.prepare import ensure_prepared, prepare
from models.data.prepared import SPLITS, PreparedData, open_prepared
from models.data.readers import table
from models.data.spec import DataError, DatasetSpec
from tests.models.data import decoded

TEST_FROM, VALID_FROM = 900, 800


def description(**changes: Any) -> DatasetSpec:
    """Users and ads in tables, two histories from the log, requests grouped."""
    content: dict[str, Any] = {
        "name": "small",
        "source": "table",
        "files": {"log": "log.parquet", "users": "users.parquet", "ads": "ads.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "request": ["user", "session"],
        "position": "position",
        "truth": "p",
        "bid": "bid",
        "user_features": [{"column": "city"}, {"column": "age", "kind": "bucketed", "buckets": 4}, {"column": "user"}],
        "context_features": [{"column": "scene"}, {"column": "hour", "kind": "number"}],
        "ad_features": [
            {"column": "ad", "min_count": 36},
            {"column": "brand", "filter": True},
            {"column": "words", "kind": "multivalued", "separator": " ", "max_values": 2},
            {"column": "quality", "kind": "number"},
        ],
        "histories": [
            {"name": "clicks", "source": "log", "column": "liked", "fields": ["ad", "brand"], "max_length": 5},
            {"name": "seen", "source": "log", "fields": ["ad"], "max_length": 4, "events": ["click", "impression"]}
            | {"column": "liked"},
        ],
        "split": {"valid_from": VALID_FROM, "test_from": TEST_FROM},
    }
    return DatasetSpec.model_validate(content | changes)


def world(rows: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    """A log with ties in time, sessions whose rows lie apart, and users and ads that no table knows."""
    r = np.random.default_rng(seed)
    users, ads = max(3, rows // 20), max(4, rows // 40)
    user = r.integers(0, users, rows)
    start = r.integers(0, 1000, rows)
    session = r.integers(0, 5, rows)
    log = pl.DataFrame(
        {
            "user": user,
            "ad": [f"ad{i}" for i in r.integers(0, ads + 1, rows)],
            "time": start,
            "session": session,
            "click": r.integers(0, 2, rows),
            "position": r.integers(0, 9, rows),
            "p": r.random(rows).astype(np.float32),
            "scene": [f"s{i}" for i in session],
            "hour": (session * 4).astype(np.float64),
        }
    )
    known = np.arange(users - 1)
    people = pl.DataFrame(
        {
            "user": known,
            "city": [["Lyon", "Köln", None][i % 3] for i in known],
            "age": r.integers(18, 80, users - 1),
            "liked": [[f"ad{i % ads}", f"ad{(i + 1) % ads}"][: i % 3] for i in known],
        }
    )
    catalogue = pl.DataFrame(
        {
            "ad": [f"ad{i}" for i in range(ads)],
            "brand": [f"b{i % 5}" for i in range(ads)],
            "words": [["red shoe sale", "blue", ""][i % 3] for i in range(ads)],
            "quality": r.random(ads),
            "bid": r.random(ads) + 0.5,
        }
    )
    return {"log": log, "users": people, "ads": catalogue}


def write(folder: Path, tables: dict[str, pl.DataFrame]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


def split_of(time: int) -> str:
    return SPLITS[(time >= VALID_FROM) + (time >= TEST_FROM)]


def by_hand(tables: dict[str, pl.DataFrame]) -> dict[str, list[dict[str, Any]]]:
    """Requests with their histories, by plain loops."""
    rows = sorted(tables["log"].with_row_index("row").to_dicts(), key=lambda row: (row["time"], row["row"]))
    liked = {row["user"]: row["liked"] for row in tables["users"].to_dicts()}
    known = set(tables["ads"]["ad"])
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[split_of(row["time"]), row["user"], row["session"]].append(row)
    order = {str(user): i for i, user in enumerate(sorted({str(row["user"]) for row in rows}))}
    found: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for (split, user, session), group in grouped.items():
        time = min(row["time"] for row in group)
        earlier = [
            row
            for row in rows
            if row["user"] == user and row["time"] < time and SPLITS.index(split_of(row["time"])) <= SPLITS.index(split)
        ]
        clicks = [*liked.get(user, []), *(row["ad"] for row in earlier if row["click"])][-5:]
        seen = [*liked.get(user, []), *(row["ad"] for row in earlier)][-4:]
        found[split].append(
            {
                "user": order[str(user)],
                "time": time,
                "ads": [ad if (ad := row["ad"]) in known else None for row in group],
                "labels": [row["click"] for row in group],
                "positions": [row["position"] for row in group],
                "truth": [row["p"] for row in group],
                "context.scene": f"s{session}",
                "history_clicks": [ad if ad in known else None for ad in clicks],
                "history_seen": [ad if ad in known else None for ad in seen],
            }
        )
    return {s: sorted(found[s], key=lambda r: (r["time"], r["user"], str(r["ads"]))) for s in SPLITS}


def test_requests_and_histories_equal_plain_loops(tmp_path: Path) -> None:
    tables = world(600)
    data = prepare(description(), write(tmp_path / "in", tables), tmp_path / "out", partitions=3, progress=False)
    expected = by_hand(tables)
    for split in SPLITS:
        found = decoded.requests(data, split)
        assert [{name: row[name] for name in expected[split][0]} for row in found] == expected[split]
        size = data.prepared.splits[split]
        assert (size.requests, size.impressions) == (len(found), sum(len(row["ads"]) for row in found))
        assert size.clicks == sum(sum(row["labels"]) for row in found)


def test_the_same_whatever_the_pieces_and_partitions(tmp_path: Path) -> None:
    rows = 100_000
    r = np.random.default_rng(5)
    log = (
        world(1_000)["log"]
        .sample(rows, with_replacement=True, seed=1)
        .with_columns(user=pl.Series(r.integers(0, 5_000, rows)), time=pl.Series(r.integers(0, 1000, rows)))
    )
    source = write(tmp_path / "in", world(1_000) | {"log": log})
    spec = description(request=[])
    one = prepare(spec, source, tmp_path / "one", partitions=1, progress=False)
    many = prepare(spec, source, tmp_path / "many", partitions=7, progress=False, chunk_rows=10_000)
    assert (len(one.parts("train")), len(many.parts("train"))) == (1, 7)
    assert many.prepared.model_copy(update={"features": one.schema}) == one.prepared
    for side in ("user", "context", "ad"):
        for a, b in zip(getattr(one.schema, side).fields, getattr(many.schema, side).fields, strict=True):
            assert a.model_dump(exclude={"mean", "std"}) == b.model_dump(exclude={"mean", "std"})
            assert (a.mean, a.std) == pytest.approx((b.mean, b.std))
    for split in SPLITS:
        assert content(one, split).equals(content(many, split))
    assert (one.folder / "users/records.npy").read_bytes() == (many.folder / "users/records.npy").read_bytes()
    assert (one.folder / "users/offsets.npy").read_bytes() == (many.folder / "users/offsets.npy").read_bytes()


def content(data: PreparedData, split: str) -> pl.DataFrame:
    frame = pl.concat([pl.read_parquet(path) for path in data.parts(split)])
    numbers = [pl.col("context_numbers").arr.first().round(4)]
    return frame.with_columns(numbers).sort("user", "time", "ads", "labels", "positions", "truth")


def test_pieces_handed_on_are_bounded(tmp_path: Path) -> None:
    source = write(tmp_path / "in", world(5_000))
    log = table.open_source(description(), source, 700).log
    lengths = [len(chunk.frame) for chunk in log.chunks()]
    assert max(lengths) <= 700
    assert sum(lengths) == log.rows == 5_000


def test_vocabularies_and_numbers_are_of_training_only(tmp_path: Path) -> None:
    tables = world(600)
    data = prepare(description(), write(tmp_path / "in", tables), tmp_path / "out", progress=False)
    train = tables["log"].filter(pl.col("time") < VALID_FROM)
    lists = (
        tables["users"].filter(pl.col("user").is_in(train["user"].unique().to_list()))["liked"].explode().drop_nulls()
    )
    counts = pl.concat([train["ad"], lists]).value_counts().filter(pl.col("ad").is_in(tables["ads"]["ad"].to_list()))
    frequent = counts.filter(pl.col("count") >= 36)["ad"]
    assert 0 < len(frequent) < len(tables["ads"])
    assert sorted(v.decode() for v in data.vocabularies["ad"].values.tolist()) == sorted(frequent)
    hour = data.schema.context.number_fields[0]
    assert hour.mean == pytest.approx(train["hour"].mean())
    assert hour.std == pytest.approx(train["hour"].std(ddof=0))
    ages = train.join(tables["users"], on="user")["age"].sort().to_numpy()
    edges = next(field for field in data.schema.user.fields if field.name == "age").edges
    assert edges == tuple(float(ages[len(ages) * i // 4]) for i in (1, 2, 3))


def test_the_catalogue(tmp_path: Path) -> None:
    tables = world(600)
    data = prepare(description(), write(tmp_path / "in", tables), tmp_path / "out", progress=False)
    ads = data.ads
    assert ads.index.values.tolist() == sorted(ad.encode() for ad in tables["ads"]["ad"])
    assert (ads.fields[0] == 0).all()
    # ad, brand, and of the two columns of `words` only the first
    assert ads.fields[1].tolist() == [1, 1, 1, 0]
    assert (ads.numbers[:2] == 0).all()
    assert ads.bids[:2].tolist() == [1.0, 1.0]
    bids = dict(zip(tables["ads"]["ad"], tables["ads"]["bid"], strict=True))
    for row in range(2, ads.index.size):
        assert ads.bids[row] == pytest.approx(bids[str(ads.index.value_of(row))])
    words = {ad: row["words"] for ad, row in decoded.ads(data).items()}
    assert (words["ad0"], words["ad1"], words["ad2"]) == (["red", "shoe"], ["blue"], [None])
    codes = np.load(data.folder / "filters/brand.codes.npy")
    values = np.load(data.folder / "filters/brand.values.npy")
    assert codes[:2].tolist() == [0, 1]
    brands = dict(zip(tables["ads"]["ad"], tables["ads"]["brand"], strict=True))
    for row in range(2, ads.index.size):
        assert values[codes[row] - 2].decode() == brands[str(ads.index.value_of(row))]


def test_features_that_sit_in_the_log(tmp_path: Path) -> None:
    log = pl.DataFrame(
        {
            "user": ["u1", "u2", "u1"],
            "ad": [7, 7, 3],
            "time": [1, 2, 3],
            "click": [1, 0, 0],
            "city": ["Lyon", "Rome", "Nice"],
            "brand": ["old", "new", "x"],
            "split": ["train", "train", "test"],
        }
    )
    spec = description(
        files={"log": "log.csv"},
        request=[],
        position=None,
        truth=None,
        bid=None,
        user_features=[{"column": "city"}],
        context_features=[],
        ad_features=[{"column": "brand"}],
        histories=[],
        split={},
    )
    (tmp_path / "in").mkdir()
    log.write_csv(tmp_path / "in/log.csv")
    data = prepare(spec, tmp_path / "in", tmp_path / "out", progress=False)
    assert data.schema.key_type == "integer"
    assert [row["user.city"] for row in decoded.requests(data, "train")] == ["Lyon", "Rome"]
    assert [row["user.city"] for row in decoded.requests(data, "test")] == [None]
    assert decoded.ads(data) == {3: {"brand": None}, 7: {"brand": "new"}}
    assert decoded.users(data)["u1"].profile == {"city": "Nice"}
    assert "positions" not in decoded.requests(data, "train")[0]
    assert decoded.requests(data, "valid") == []


@pytest.mark.parametrize("chunk_rows", [1, 100])
def test_ads_that_sit_in_the_log_are_as_training_last_showed_them(chunk_rows: int, tmp_path: Path) -> None:
    rows = [(1, 10, 2.0), (1, 11, 3.0), (2, 12, 4.0), (1, 800, 5.0), (2, 900, 6.0), (3, 900, 8.0), (3, 850, 7.0)]
    log = {"user": [0] * 7, "ad": [r[0] for r in rows], "time": [r[1] for r in rows], "price": [r[2] for r in rows]}
    pl.DataFrame(log | {"bid": log["price"], "click": [1] * 7}).write_parquet(tmp_path / "log.parquet")
    spec = description(
        files={"log": "log.parquet"},
        request=(),
        position=None,
        truth=None,
        user_features=[{"column": "user"}],
        context_features=[],
        ad_features=[{"column": "ad"}, {"column": "price", "kind": "number"}],
        histories=[],
    )
    data = prepare(spec, tmp_path, tmp_path / "out", progress=False, chunk_rows=chunk_rows)
    assert data.ads.bids[2:].tolist() == [3.0, 4.0, 7.0], "ad 3: valid before test"
    price = data.schema.ad.number_fields[0]
    # Weighted by training impressions: ad 1 at 3 twice, ad 2 at 4 once.
    assert price.mean == pytest.approx(10 / 3)


def test_two_sides_may_have_a_column_of_the_same_name(tmp_path: Path) -> None:
    tables = world(100)
    tables["users"] = tables["users"].with_columns(brand=pl.lit("mine"))
    spec = description(user_features=[{"column": "brand"}])
    data = prepare(spec, write(tmp_path / "in", tables), tmp_path / "out", progress=False)
    assert data.vocabularies["user.brand"].values.tolist() == [b"mine"]
    assert len(data.vocabularies["ad.brand"]) > 1


def test_a_stored_user_is_encoded_as_the_next_request_would_be(tmp_path: Path) -> None:
    tables = world(400)
    source = write(tmp_path / "in", tables)
    without = prepare(description(), source, tmp_path / "without", progress=False)
    # The same log with one more request of every user at its end shows what preparation makes of that request.
    users = tables["log"]["user"].unique()
    last = (
        tables["log"]
        .head(len(users))
        .with_columns(user=users, time=pl.lit(5_000, pl.Int64), session=pl.lit(99, pl.Int64))
    )
    write(source, {"log": pl.concat([tables["log"], last])})
    data = prepare(description(), source, tmp_path / "with", progress=False)
    encoder = Encoder(without.schema, without.vocabularies)
    names = sorted(str(user) for user in users)
    stored = decoded.users(without)
    rows = pl.concat([pl.read_parquet(path) for path in data.parts("test")]).filter(pl.col("time") == 5_000).to_dicts()
    assert len(rows) == len(users)
    for row in rows:
        record = stored[names[row["user"]]]
        assert encoder.encode_one(encoder.schema.user, record.profile)[0].tolist() == row["user_ids"]
        for history in without.schema.histories:
            online = encode_history(encoder, history, record.events, without.ads.index, without.ads.fields)
            offline = without.ads.fields[row[f"history_{history.name}"]][:, without.schema.history_columns(history)]
            assert online.tolist() == (offline.tolist() or [[0] * online.shape[1]])


def test_lists_as_context_are_common_to_a_request(tmp_path: Path) -> None:
    tables = world(100)
    words = tables["log"]["scene"].map_elements(lambda scene: [scene, "all"], return_dtype=pl.List(pl.String))
    tables["log"] = tables["log"].with_columns(words=words)
    spec = description(context_features=[{"column": "words", "kind": "multivalued", "max_values": 3}])
    data = prepare(spec, write(tmp_path / "in", tables), tmp_path / "out", progress=False)
    assert {tuple(row["context.words"]) for row in decoded.requests(data, "train")} == {
        (f"s{i}", "all") for i in range(5)
    }
    tables["log"] = tables["log"].with_columns(words=pl.Series([[str(i)] for i in range(100)]))
    with pytest.raises(DataError, match="'words' differs within one request"):
        prepare(spec, write(tmp_path / "in", tables), tmp_path / "again", progress=False)


def test_behaviours_that_are_ads(tmp_path: Path) -> None:
    tables = world(200)
    tables["behaviours"] = pl.DataFrame({"user": [0, 0, 1], "time": [5, -5, 5], "ad": ["ad1", "ad0", "elsewhere"]})
    files = {"log": "log.parquet", "users": "users.parquet", "ads": "ads.parquet", "behaviours": "behav*.parquet"}
    history = {"name": "bought", "source": "behaviours", "fields": ["ad"], "max_length": 5}
    spec = description(files=files, histories=[history])
    data = prepare(spec, write(tmp_path / "in", tables), tmp_path / "out", partitions=2, progress=False)
    names = sorted({str(u) for u in tables["log"]["user"]})
    for row in decoded.requests(data, "train"):
        expected = {"0": ["ad0", "ad1"], "1": [None]}.get(names[row["user"]], []) if row["time"] > 5 else None
        assert expected is None or row["history_bought"] == expected
    assert [e.values for e in decoded.users(data)["0"].events] == [("ad0",), ("ad1",)]


def test_prepared_once_and_anew_when_something_changes(tmp_path: Path) -> None:
    source = write(tmp_path / "in", world(100))
    first = ensure_prepared(description(), source, tmp_path / "root", progress=False)
    stamp = (first.folder / "schema.json").stat().st_mtime_ns
    assert ensure_prepared(description(), source, tmp_path / "root", progress=False).folder == first.folder
    assert (first.folder / "schema.json").stat().st_mtime_ns == stamp
    other = ensure_prepared(description(histories=[]), source, tmp_path / "root", progress=False)
    write(source, {"log": world(101)["log"]})
    third = ensure_prepared(description(), source, tmp_path / "root", progress=False)
    assert len({first.folder, other.folder, third.folder}) == 3
    copied = shutil.copytree(source, tmp_path / "copy")  # other times, other place
    assert ensure_prepared(description(), copied, tmp_path / "root", progress=False).folder == third.folder
    assert third.prepared.fingerprint.startswith(third.folder.name.removeprefix("small-"))


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "in", world(100))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "write_requests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(description(), source, tmp_path / "root/out", progress=False)
    assert [path.name for path in (tmp_path / "root").iterdir()] == []
    with pytest.raises(DataError, match="adrank prepare"):
        open_prepared(tmp_path / "root/out")


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "in", world(100))
    prepare(description(), source, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="exists already"):
        prepare(description(), source, tmp_path / "out", progress=False)
    again = prepare(description(histories=[]), source, tmp_path / "out", progress=False, force=True)
    assert again.schema.histories == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
