"""Data and descriptions that cannot be used: the message names the file, the column and the value."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from models.data.prepare import prepare
from models.data.prepared import open_prepared
from models.data.spec import DataError, DatasetSpec

LOG = {"user": [1, 1, 2], "ad": [5, 6, 5], "time": [10, 20, 30], "click": [1, 0, 1], "scene": ["a", "b", "a"]}
USERS = {"user": [1, 2], "city": ["Lyon", "Rome"], "liked": [[5], [6]]}
ADS = {"ad": [5, 6], "brand": ["x", "y"], "bid": [1.0, 2.0]}
Columns = Mapping[str, Any]
NONE: Columns = MappingProxyType({})
CLICKS = {"name": "clicks", "source": "log", "fields": ["brand"]}


def attempt(folder: Path, *, log: Columns = NONE, users: Columns = NONE, ads: Columns = NONE, **spec: Any) -> None:
    """Prepare the small world with some columns and entries changed."""
    for name, columns in (("log", LOG | dict(log)), ("users", USERS | dict(users)), ("ads", ADS | dict(ads))):
        pl.DataFrame({k: v for k, v in columns.items() if v is not None}, strict=False).write_parquet(
            folder / f"{name}.parquet"
        )
    content = {
        "name": "small",
        "source": "table",
        "files": {"log": "log.parquet", "users": "users.parquet", "ads": "ads.parquet"},
        "label": "click",
        "user": "user",
        "ad": "ad",
        "time": "time",
        "bid": "bid",
        "user_features": [{"column": "city"}],
        "context_features": [{"column": "scene"}],
        "ad_features": [{"column": "brand"}],
    }
    try:
        prepare(DatasetSpec.model_validate(content | spec), folder, folder / "out", progress=False)
    finally:
        assert sorted(path.suffix for path in folder.iterdir() if path.name != "out") == [".parquet"] * 3


def test_the_small_world_itself_is_fine(tmp_path: Path) -> None:
    attempt(tmp_path)
    assert open_prepared(tmp_path / "out").prepared.splits["train"].impressions > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"click": [1, 2, 0]}, r"log.parquet: column 'click', row 1: 2, a label must be 0 or 1"),
        ({"click": [1, None, 0]}, r"column 'click', row 1: None"),
        ({"click": [1.0, float("nan"), 0.0]}, r"column 'click', row 1: nan"),
        ({"click": ["1", "0", "1"]}, r"column 'click': type String"),
        ({"time": [1, None, 3]}, r"column 'time', row 1: None, every row needs a time"),
        ({"user": [1, None, 2]}, r"column 'user', row 1: None, every row needs an id"),
        ({"ad": [5, None, 5]}, r"column 'ad', row 1: None, every row needs an id"),
        ({"ad": ["5", "6", "5"]}, r"log.parquet: column 'ad' holds String, elsewhere Int64"),
        ({"user": ["1", "1", "2"]}, r"column 'user' holds String, elsewhere Int64"),
        ({"scene": [0.5, 1.0, 2.0]}, r"column 'scene', row 0: 0.5"),
        ({"scene": None}, r"log.parquet: there is no column 'scene'; it has user, ad, time, click"),
        ({"split": ["train", "train", "future"]}, r"column 'split', row 2: 'future', known: train, valid, test"),
        ({"split": ["test", "test", "test"]}, r"split 'train' is empty"),
    ],
)
def test_logs(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, log=changed)


@pytest.mark.parametrize(
    ("table", "changed", "message"),
    [
        ("ads", {"ad": [5, 5]}, r"ads.parquet: column 'ad', row 1: 5, this id is there twice"),
        ("users", {"user": [1, 1]}, r"users.parquet: column 'user', row 1: 1, this id is there twice"),
        ("ads", {"brand": None}, r"ads.parquet: there is no column 'brand'; it has ad, bid"),
        ("ads", {"bid": [1.0, -1.0]}, r"ads.parquet: column 'bid', row 1: -1.0"),
        ("ads", {"bid": [1.0, 1e300]}, r"ads.parquet: column 'bid', row 1: 1e\+300, a number must lie within"),
        ("ads", {"ad": [7, 8]}, r"log.parquet: none of the ads of its 3 rows is among the 2 of .*ads.parquet"),
        ("ads", {"bid": None}, r"ads.parquet: there is no column 'bid'"),
        ("users", {"city": None}, r"users.parquet: there is no column 'city'"),
    ],
)
def test_tables(table: str, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, **{table: changed})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"files": {"users": "users.parquet"}}, "files names no log"),
        ({"files": {"log": "log.parquet", "cities": "x.csv"}}, r"files has \['cities'\], known: log, users"),
        ({"files": {"log": "absent-*.csv"}}, r"absent-\*.csv: no such file"),
        ({"files": {"log": "/log.parquet"}}, "files.log is '/log.parquet', a path relative"),
        ({"files": {"log": "log.txt*"}}, r"no such file"),
        ({"split": {"valid_from": 5, "test_from": 5}}, "valid_from 5 is not before split.test_from 5"),
        ({"split": {"valid_from": 5}}, r"split 'train' is empty"),
        ({"split": {"test_from": 99}}, r"split 'test' is empty \(split.test_from is 99\)"),
        ({"user_features": [{"column": "city", "filter": True}]}, "filter is for categorical ad features"),
        (
            {"ad_features": [{"column": "brand", "kind": "multivalued", "separator": ",", "filter": True}]},
            "'brand' is multivalued; filter",
        ),
        ({"ad_features": [{"column": "brand"}, {"column": "brand"}]}, r"ad_features name \['brand'\] twice"),
        ({"ad_features": [{"column": "brand", "max_values": 2}]}, "max_values, separator are not for it"),
        (
            {"ad_features": [{"column": "brand", "kind": "number"}]},
            r"ads.parquet: column 'brand', row 0: 'x', a number is needed",
        ),
        ({"histories": [CLICKS, CLICKS]}, "two histories are called 'clicks'"),
        ({"histories": [CLICKS | {"source": "behaviours"}]}, "needs a behaviour log, and there is none"),
        ({"histories": [CLICKS | {"of_ads": False}]}, "of_ads cannot be false"),
        (
            {"histories": [CLICKS | {"source": "column", "column": "loved"}]},
            "users.parquet: there is no column 'loved'",
        ),
        ({"histories": [CLICKS | {"source": "column", "column": "city"}]}, "column 'city': type String holds no lists"),
        (
            {"request": ["user"], "context_features": [{"column": "scene"}]},
            "'scene' differs within one request of user 1",
        ),
        ({"user_features": [], "context_features": []}, "nothing common to the candidates of a request"),
        ({"name": "../elsewhere"}, "cannot name a folder"),
    ],
)
def test_descriptions(spec: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        attempt(tmp_path, **spec)


def test_split_times_beside_a_split_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has a column 'split', and the description gives split times too"):
        attempt(tmp_path, log={"split": ["train"] * 3}, split={"test_from": 5})


def test_a_list_of_another_type_than_the_ads(tmp_path: Path) -> None:
    history = CLICKS | {"source": "column", "column": "liked"}
    with pytest.raises(DataError, match=r"list column 'liked' .* holds List\(String\), the ad ids are Int64"):
        attempt(tmp_path, users={"liked": [["5"], ["6"]]}, histories=[history])


def test_histories_that_store_one_kind_differently(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "time": [1], "brand": ["x"]}).write_csv(tmp_path / "behaviours.csv")
    other = {"name": "brands", "source": "behaviours", "of_ads": False, "fields": ["brand"]}
    files = {"log": "log.parquet", "users": "users.parquet", "ads": "ads.parquet", "behaviours": "behaviours.csv"}
    spec = DatasetSpec.model_validate(
        {"name": "s", "source": "table", "files": files, "label": "click", "user": "user", "ad": "ad", "time": "time"}
        | {"ad_features": [{"column": "brand"}], "histories": [CLICKS, other]}
    )
    for name, columns in (("log", LOG), ("users", USERS), ("ads", ADS)):
        pl.DataFrame(columns).write_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match="'clicks' and 'brands' make 'click' events of different things"):
        prepare(spec, tmp_path, tmp_path / "out", progress=False)


@pytest.mark.parametrize("side", ["ad", "context"])
def test_a_number_beyond_32_bits(side: str, tmp_path: Path) -> None:
    size = {"column": "size", "kind": "number"}
    table, first = ("ads", "brand") if side == "ad" else ("log", "scene")
    sizes = [1.0, -1e200, 2.0][: 2 if side == "ad" else 3]
    changed: dict[str, Any] = {table: {"size": sizes}, f"{side}_features": [{"column": first}, size]}
    with pytest.raises(DataError, match=rf"{table}.parquet: column 'size', row 1: -1e\+200, a number must lie within"):
        attempt(tmp_path, **changed)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"histories": [CLICKS | {"name": "Clicks"}]}, "histories.0.name"),
        ({"histories": [CLICKS | {"name": "a/b"}]}, "histories.0.name"),
        ({"histories": [CLICKS | {"name": "user_numbers"}]}, "must not end in '_numbers'"),
        ({"histories": [CLICKS | {"fields": ["brand", "brand"]}]}, r"names fields twice: \['brand'\]"),
        ({"ad_features": [{"column": "brand", "kind": "bucketed", "buckets": 1001}]}, "ad_features.0.buckets"),
        ({"ad_features": [{"column": "brand", "kind": "multivalued", "max_values": 1001}]}, "ad_features.0.max_values"),
    ],
)
def test_entries(entry: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=message):
        attempt(tmp_path, **entry)


def test_what_cannot_be_read_back_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.prepare.write_catalogue", lambda *_: None)
    with pytest.raises(DataError, match="an array cannot be read"):
        attempt(tmp_path)
    assert not (tmp_path / "out").exists()
