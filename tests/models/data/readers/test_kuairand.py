"""KuaiRand in its true layout, small; and, where the real cut is there, its known sizes."""

from pathlib import Path

import polars as pl
import pytest

from models.data.prepare import prepare
from models.data.prepared import SplitSize
from models.data.readers import kuairand
from models.data.spec import DataError, DatasetSpec, SplitSpec, read_spec
from tests.models.data import decoded

CONFIGS = Path(__file__).parents[4] / "models/configs/data"
REAL = Path(__file__).parents[4].parent / "shared/data/kuairand"
USER_COLUMNS = [f"onehot_feat{i}" for i in range(18)]


def write_source(folder: Path) -> None:
    """Two users in train, one of them and a new one in valid and test; video 9 is only ever in test."""

    def log(split: str, rows: list[tuple[int, int, int, int, int]]) -> None:
        names = ["user_id", "video_id", "time_ms", "tab", "is_click"]
        frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(hourmin=pl.lit(900, pl.Int16))
        frame.with_columns(pl.col("tab").cast(pl.Int16), pl.col("is_click").cast(pl.Int8)).write_parquet(
            folder / f"impressions_{split}.parquet"
        )

    # user, video, time, tab, click; user 1 has one request of two videos at time 100.
    log("train", [(1, 5, 100, 1, 1), (1, 6, 100, 1, 0), (2, 5, 110, 0, 1), (1, 7, 120, 1, 1)])
    log("valid", [(1, 5, 115, 1, 1), (3, 8, 130, 1, 0)])
    log("test", [(1, 9, 140, 1, 0), (3, 5, 150, 2, 1)])
    pl.DataFrame({"user_id": [1, 2, 4], "long_watch_seq": [[6, 5], [], [8]]}).write_parquet(
        folder / "histories.parquet"
    )
    users = {"user_id": [1, 2, 3], "user_active_degree": ["full_active", "UNKNOWN", "full_active"]}
    users |= {name: [1, 1, 0] for name in ("is_lowactive_period", "is_live_streamer", "is_video_author")}
    for name in ("follow_user", "fans_user", "friend_user"):
        users |= {f"{name}_num": [5, 10, 0], f"{name}_num_range": ["(0,10]", "(10,50]", "0"]}
    users |= {"register_days": [10, 20, 30], "register_days_range": ["8-14", "15-30", "15-30"]}
    frame = pl.DataFrame(users | {name: [1.0, None, 2.0] for name in USER_COLUMNS})
    frame.write_parquet(folder / "users.parquet")
    pl.DataFrame(
        {
            "video_id": [5, 6, 7, 8, 9],
            "author_id": [50, 50, 51, 52, 53],
            "video_type": ["NORMAL", "NORMAL", "AD", "NORMAL", "NORMAL"],
            "upload_dt": ["2022-04-10"] * 5,
            "upload_type": ["Web", "Web", "ShortImport", "Web", "LongImport"],
            "video_duration": [1000.0, 2000.0, None, 4000.0, 5000.0],
            "music_id": [1, 1, 2, 3, 3],
            "music_type": [4.0, 4.0, None, 9.0, 9.0],
            "tag": ["39,12", "12", "unknown", "2,3,4", "39"],
            "server_width": [720.0] * 5,
            "server_height": [1280.0] * 5,
            "visible_status": [0.0] * 5,
        }
    ).write_parquet(folder / "videos.parquet")


def spec(name: str) -> DatasetSpec:
    return read_spec(CONFIGS / f"{name}.yaml")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    write_source(folder)
    return folder


def test_requests_are_decoded_back(source: Path, tmp_path: Path) -> None:
    data = prepare(spec("kuairand"), source, tmp_path / "out", progress=False)
    train, valid, test = (decoded.requests(data, split) for split in ("train", "valid", "test"))
    assert [(r["time"], r["ads"], r["labels"]) for r in train] == [
        (100, [5, 6], [1, 0]),
        (110, [5], [1]),
        (120, [7], [1]),
    ]
    assert [r["user"] for r in train] == [0, 1, 0]
    assert [r["history_clicks"] for r in train] == [[6, 5], [], [6, 5]]
    assert [(r["ads"], r["labels"], r["history_clicks"]) for r in valid] == [([5], [1], [6, 5]), ([8], [0], [])]
    assert [r["ads"] for r in test] == [[9], [5]]
    assert data.prepared.splits["train"] == SplitSize(requests=3, impressions=4, clicks=3)
    assert data.prepared.users == 3


def test_vocabularies_are_of_training_and_what_its_users_watched(source: Path, tmp_path: Path) -> None:
    data = prepare(spec("kuairand"), source, tmp_path / "out", progress=False)
    # 8 is only in valid and in the list of user 4, who is not in train; 9 only in test.
    assert data.vocabularies["video_id"].values.tolist() == [5, 6, 7]
    # users 3 and 4 have no training impression
    assert data.vocabularies["user_id"].values.tolist() == [1, 2]
    assert data.vocabularies["tab"].values.tolist() == [0, 1]
    assert data.vocabularies["author_id"].values.tolist() == [50, 51]
    catalogue = decoded.ads(data)
    assert catalogue[5]["tag"] == ["39", "12"]
    assert (catalogue[5]["upload_type"], catalogue[7]["upload_type"]) == ("Web", None), "seen once, two are needed"
    assert catalogue[8] | {"video_duration": 0} == catalogue[8] | {"video_duration": 0, "video_id": None}
    test = decoded.requests(data, "test")
    assert [r["context.tab"] for r in test] == [1, None]
    assert [r["user.user_id"] for r in test] == [1, None]


def test_live_histories_see_earlier_rows_of_earlier_splits_only(source: Path, tmp_path: Path) -> None:
    data = prepare(spec("kuairand-live-skips"), source, tmp_path / "out", progress=False)
    train, valid, test = (decoded.requests(data, split) for split in ("train", "valid", "test"))
    # The two rows of one request do not see each other; the valid click at 115 is not shown to train at 120.
    assert [(r["time"], r["history_clicks"], r["history_skipped"]) for r in train] == [
        (100, [6, 5], []),
        (110, [], []),
        (120, [6, 5, 5], [6]),
    ]
    assert [(r["time"], r["history_clicks"], r["history_skipped"]) for r in valid] == [
        (115, [6, 5, 5], [6]),
        (130, [], []),
    ]
    assert [(r["time"], r["history_clicks"], r["history_skipped"]) for r in test] == [
        (140, [6, 5, 5, 5, 7], [6]),
        (150, [], [8]),
    ]


def test_packed_users_hold_raw_values_and_the_end_of_the_log(source: Path, tmp_path: Path) -> None:
    static = decoded.users(prepare(spec("kuairand"), source, tmp_path / "static", progress=False))
    assert sorted(static) == ["1", "2", "3", "4"]
    assert [(e.kind, e.time_ms, e.values) for e in static["1"].events] == [("click", 0, (6,)), ("click", 0, (5,))]
    assert static["1"].profile["user_active_degree"] == "full_active"
    assert static["1"].profile["onehot_feat17"] == 1
    assert static["2"].profile["onehot_feat17"] is None
    assert static["2"].events == ()
    live = decoded.users(prepare(spec("kuairand-live-skips"), source, tmp_path / "live", progress=False))
    assert [(e.kind, e.time_ms, *e.values) for e in live["1"].events] == [
        ("click", 0, 6),
        ("click", 0, 5),
        ("click", 100, 5),
        ("impression", 100, 6),
        ("click", 115, 5),
        ("click", 120, 7),
        ("impression", 140, 9),
    ]


def test_histories_are_read_only_where_used(source: Path) -> None:
    (source / "histories.parquet").unlink()
    with pytest.raises(DataError, match=r"histories.parquet: no such file"):
        kuairand.files(spec("kuairand"), source)
    without = spec("kuairand").model_copy(update={"histories": ()})
    assert len(kuairand.files(without, source)) == 5


def times_of(source: Path, out: Path, **split: int) -> dict[str, list[int]]:
    described = spec("kuairand").model_copy(update={"split": SplitSpec(**split)})
    data = prepare(described, source, out, progress=False)
    return {name: [r["time"] for r in decoded.requests(data, name)] for name in ("train", "valid", "test")}


def test_split_times_stand_in_for_the_sources_own_splits(source: Path, tmp_path: Path) -> None:
    assert times_of(source, tmp_path / "two", valid_from=115, test_from=130) == {
        "train": [100, 110],
        "valid": [115, 120],
        "test": [130, 140, 150],
    }
    found = times_of(source, tmp_path / "one", valid_from=120, until=150)
    assert found == {"train": [100, 110, 115], "valid": [120, 130, 140], "test": []}


def test_an_end_leaves_the_sources_own_splits(source: Path, tmp_path: Path) -> None:
    found = times_of(source, tmp_path / "out", until=150)
    assert found == {"train": [100, 110, 120], "valid": [115, 130], "test": [140]}


@pytest.mark.skipif(not REAL.is_dir(), reason="the KuaiRand cut is not at ../shared/data/kuairand")
@pytest.mark.parametrize("name", ["kuairand", "kuairand-live", "kuairand-live-skips"])
def test_the_real_cut(name: str, tmp_path: Path) -> None:
    data = prepare(spec(name), REAL, tmp_path / "out", progress=False)
    sizes = {split: (size.impressions, size.clicks) for split, size in data.prepared.splits.items()}
    assert {split: size[0] for split, size in sizes.items()} == {"train": 71_289, "valid": 20_513, "test": 130_639}
    assert {split: size[1] for split, size in sizes.items()} == {"train": 31_392, "valid": 9_702, "test": 58_912}
    assert len(data.ads.index) == 7_583
    for split in sizes:
        source = pl.read_parquet(
            REAL / f"impressions_{split}.parquet", columns=["user_id", "time_ms", "video_id", "is_click"]
        )
        rows = pl.concat([pl.read_parquet(p, columns=["time", "ads", "labels"]) for p in data.parts(split)])
        flat = rows.explode("ads", "labels").with_columns(
            ads=pl.Series(data.ads.index.values)[rows["ads"].explode() - 2]
        )
        expected = source.select(time="time_ms", ads="video_id", labels="is_click")
        assert flat.sort(pl.all()).rows() == expected.sort(pl.all()).rows()


def test_further_labels_are_read_where_the_log_has_them(source: Path, tmp_path: Path) -> None:
    """As published, the log has is_like and long_view too; the cut has not, and says so."""
    labels = {"like": {"column": "is_like"}, "long_view": {"column": "long_view"}}
    described = DatasetSpec.model_validate(spec("kuairand").model_dump(mode="json") | {"labels": labels})
    with pytest.raises(DataError, match=r"impressions_train.parquet: there is no column 'is_like'"):
        prepare(described, source, tmp_path / "out", progress=False)
    for split, rows in (("train", 4), ("valid", 2), ("test", 2)):
        path = source / f"impressions_{split}.parquet"
        likes, views = pl.Series([0, 1, 0, 1][:rows], dtype=pl.Int8), pl.Series([1, 0, 1, 1][:rows], dtype=pl.Int8)
        pl.read_parquet(path).with_columns(is_like=likes, long_view=views).write_parquet(path)
    found = prepare(described, source, tmp_path / "out", progress=False)
    assert found.prepared.splits["train"].further == {"like": 2, "long_view": 3}
    rows_of = pl.concat(pl.read_parquet(part) for part in found.parts("train")).sort("user", "time").to_dicts()
    assert [(row["labels"], row["label_like"], row["label_long_view"]) for row in rows_of] == [
        ([1, 0], [0, 1], [1, 0]),
        ([1], [1], [1]),
        ([1], [0], [1]),
    ]
