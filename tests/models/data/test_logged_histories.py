"""Histories that stand in the log, as each request was served with them: nothing is rebuilt."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bundle.record import Event, UserRecord
from models.data.prepare import prepare
from models.data.prepared import PreparedData
from models.data.spec import DataError, DatasetSpec
from tests.models.data import decoded

ROWS: list[dict[str, Any]] = [
    # Ann's clicks of 100 came too late for the request of 200, which a history made of the log would not know.
    {"request": "a", "user": "ann", "city": "Lyon", "time": 100, "ad": 1, "click": 1, "served": [9, 8, 7]},
    {"request": "a", "user": "ann", "city": "Lyon", "time": 100, "ad": 2, "click": 0, "served": [9, 8, 7]},
    {"request": "b", "user": "ann", "city": "Oslo", "time": 200, "ad": 3, "click": 1, "served": [9, 8, 7, 7]},
    {"request": "c", "user": "bob", "city": None, "time": 300, "ad": 1, "click": 0, "served": []},
    {"request": "d", "user": "ann", "city": "Rome", "time": 400, "ad": 1, "click": 1, "served": [55]},
]


def prepared(folder: Path, rows: list[dict[str, Any]], **history: Any) -> PreparedData:
    folder.mkdir(exist_ok=True)
    schema = {"served": pl.List(pl.String if isinstance((rows[0]["served"] or [0])[0], str) else pl.Int64)}
    pl.DataFrame(rows, schema_overrides=schema).write_parquet(folder / "log.parquet")
    pl.DataFrame({"ad": [1, 2, 3, 7, 8, 9], "brand": [1, 1, 2, 3, 3, 3]}).write_parquet(folder / "ads.parquet")
    spec = {
        "name": "logged",
        "source": "table",
        "files": {"log": "log.parquet", "ads": "ads.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "request": ["request"],
        "user_features": [{"column": "city"}],
        "ad_features": [{"column": "ad"}, {"column": "brand"}],
        "histories": [
            {"name": "seen", "source": "logged", "column": "served", "fields": ["ad"], "max_length": 3} | history
        ],
    }
    return prepare(DatasetSpec.model_validate(spec), folder, folder / "out", partitions=2, progress=False)


def test_requests_have_the_lists_they_were_logged_with(tmp_path: Path) -> None:
    data = prepared(tmp_path / "raw", ROWS)
    found = decoded.requests(data, "train")
    assert [row["history_seen"] for row in found] == [[9, 8, 7], [8, 7, 7], [], [None]]
    assert [row["user.city"] for row in found] == ["Lyon", "Oslo", None, "Rome"]
    assert [row["ads"] for row in found] == [[1, 2], [3], [1], [1]]


def test_a_record_is_the_last_list_and_what_was_clicked_since(tmp_path: Path) -> None:
    data = prepared(tmp_path / "raw", ROWS[:4])
    records = decoded.users(data)
    assert records["bob"] == UserRecord({"city": None})
    ann = (Event("click", 0, (7,)), Event("click", 0, (7,)), Event("click", 200, (3,)))
    assert records["ann"] == UserRecord({"city": "Oslo"}, ann)


def test_lists_count_for_vocabularies_in_training_only(tmp_path: Path) -> None:
    rows = [row | {"split": "train" if row["request"] == "a" else "valid"} for row in ROWS]
    data = prepared(tmp_path / "raw", rows)
    assert data.vocabularies["ad"].values.tolist() == [1, 2, 7, 8, 9]
    assert data.vocabularies["brand"].values.tolist() == [1, 3]


def test_lists_that_differ_within_a_request_are_refused(tmp_path: Path) -> None:
    rows = [ROWS[0], ROWS[1] | {"served": [9]}, *ROWS[2:]]
    with pytest.raises(DataError, match="column 'served' differs within one request of user 'ann' at time 100"):
        prepared(tmp_path / "raw", rows)


def test_lists_of_another_type_than_the_ads_are_refused(tmp_path: Path) -> None:
    rows = [row | {"served": [str(ad) for ad in row["served"]] or ["x"]} for row in ROWS]
    with pytest.raises(DataError, match=r"'served': holds List\(String\), the ad ids are Int64"):
        prepared(tmp_path / "raw", rows)


def test_a_column_must_be_named_and_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'seen' has source 'logged' and names no column"):
        prepared(tmp_path / "raw", ROWS, column=None)
    with pytest.raises(DataError, match="there is no column 'away'"):
        prepared(tmp_path / "raw", ROWS, column="away")
