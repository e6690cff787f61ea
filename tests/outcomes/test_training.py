"""The training log: what each request was served with, in the columns of the dataset it continues."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from bundle.record import Event, UserRecord, pack
from outcomes.description import read_description
from outcomes.errors import OutcomesError
from outcomes.tables import IMPRESSIONS
from outcomes.training import NO_AD, TrainingLog

SHOP: dict[str, Any] = {
    "name": "shop",
    "source": "table",
    "files": {"log": "log.parquet", "ads": "ads.csv", "users": "users.parquet"},
    "label": "click",
    "user": "user",
    "ad": "ad",
    "time": "time",
    "user_features": [
        {"column": "city"},
        {"column": "age", "kind": "number"},
        {"column": "tags", "kind": "multivalued"},
    ],
    "context_features": [{"column": "page"}, {"column": "words", "kind": "multivalued", "separator": "|"}],
    "ad_features": [{"column": "ad"}, {"column": "category"}],
    "histories": [
        {"name": "clicks", "source": "log", "fields": ["ad"], "max_length": 3},
        {"name": "both", "source": "log", "fields": ["ad"], "events": ["click", "impression"]},
    ],
    "labels": {"like": {"column": "like"}},
    "split": {"valid_from": 1},
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return make(tmp_path / "shop", SHOP)


def make(folder: Path, spec: dict[str, Any]) -> Path:
    folder.mkdir()
    pl.DataFrame({"user": [1], "ad": [101], "time": [1], "click": [1], "page": ["a"], "words": ["a|b"]}).write_parquet(
        folder / "log.parquet"
    )
    pl.DataFrame({"user": [1], "city": ["Lyon"], "age": [3], "tags": [[1, 2]]}).write_parquet(folder / "users.parquet")
    (folder / "ads.csv").write_text("ad,category\n101,shoes\n102,hats\n")
    (folder / "dataset.yaml").write_text(yaml.safe_dump(spec))
    return folder / "dataset.yaml"


def line(request_id: str, record: UserRecord | None, **asked: Any) -> dict[str, Any]:
    head = {"request_id": request_id, "time_ms": 77}
    given = {"user_id": "ann"} | asked
    packed = None if record is None else pack(record).decode()
    return {"id": "80-0", "head": head, "asked": json.dumps(given), "record": packed, "answer": {}}


def test_features_are_those_that_were_served(shop: Path, tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "out", read_description(shop))
    clicked: list[int | str] = [5, "6", "seven", 8]
    events = [Event("click", i, (ad,)) for i, ad in enumerate(clicked)]
    record = UserRecord({"city": "Oslo", "age": "41", "tags": [3, "x", 4]}, (*events, Event("impression", 9, (9,))))
    rows = log.features(
        [
            line("stored", record, context={"page": 3, "words": ["p", "q"]}),
            line("given", record, user={"profile": {"city": None}, "history": {"clicks": ["11", 12]}}),
            line("nobody", None, user_id=7),
            line("failed", record) | {"answer": None},
        ]
    ).to_dicts()
    none: dict[str, Any] = {"city": None, "age": None, "tags": [], "page": None, "words": None}
    assert rows == [
        {
            "request_id": "stored",
            "user": "ann",
            "time": 77,
            "city": "Oslo",
            "age": 41.0,
            "tags": [3, 4],
            "page": "3",
            "words": "p|q",
            "served_clicks": [6, NO_AD, 8],
            "served_both": [5, 6, NO_AD, 8, 9],
        },
        none
        | {"request_id": "given", "user": "ann", "time": 77, "age": 41.0, "tags": [3, 4]}
        | {"served_clicks": [11, 12], "served_both": [5, 6, NO_AD, 8, 9]},
        none | {"request_id": "nobody", "user": "7", "time": 77, "served_clicks": [], "served_both": []},
    ]


def test_a_user_that_is_a_feature_keeps_its_type(tmp_path: Path) -> None:
    spec = SHOP | {"user_features": [{"column": "user"}, *SHOP["user_features"]]}
    log = TrainingLog(tmp_path / "out", read_description(make(tmp_path / "shop", spec)))
    found = log.features([line("a", None, user_id="7"), line("b", None), line("c", None, user_id=8)])
    assert found["user"].to_list() == [7, 8]  # ann has no place among integers


def test_the_log_and_its_description(shop: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    log = TrainingLog(out, read_description(shop))
    features = log.features([line(f"r{i}", None, context={"page": "a"}) for i in range(3)])
    shown = {"request_id": ["r0", "r0", "r2"], "ad_id": ["102", "101", "101"], "position": [1, 3, 1]}
    impressions = pl.DataFrame(
        {name: shown.get(name, [None] * 3) for name in IMPRESSIONS} | {"clicked": [False, True, False]},
        schema=IMPRESSIONS,
    )
    log.write(0, features, impressions)
    log.describe()
    written = pl.read_parquet(out / "log/date=1970-01-01/0.parquet", hive_partitioning=False)
    assert written.select("request_id", "ad", "position", "click").rows() == [
        ("r0", 102, 0, 0),
        ("r0", 101, 2, 1),
        ("r2", 101, 0, 0),
    ]
    described = yaml.safe_load((out / "dataset.yaml").read_text())
    assert described["files"] == {"log": "log/date=*/*.parquet", "ads": "ads/*.csv"}
    assert (out / "ads/ads.csv").read_bytes() == (shop.parent / "ads.csv").read_bytes()
    assert described["request"] == ["request_id"]
    assert [(h["source"], h["column"]) for h in described["histories"]] == [
        ("logged", "served_clicks"),
        ("logged", "served_both"),
    ]
    assert "labels" not in described
    assert "split" not in described  # three requests of one time cannot be split


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "taobao"}, "source 'table' with a table of ads only"),
        ({"files": {"log": "log.parquet"}}, "source 'table' with a table of ads only"),
        ({"files": SHOP["files"] | {"users": "gone.parquet"}}, "gone.parquet: no such file"),
        ({"context_features": [{"column": "click"}]}, "would have these columns twice: click"),
        ({"context_features": [{"column": "gone"}]}, "KeyError: 'gone'"),
        (
            {"histories": [{"name": "words", "source": "behaviours", "fields": ["category"], "of_ads": False}]},
            "history 'words' is not of ads",
        ),
    ],
)
def test_datasets_that_cannot_be_continued_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = make(tmp_path / "shop", SHOP | change)
    with pytest.raises(OutcomesError, match=f"{path}: .*{message}"):
        read_description(path)
