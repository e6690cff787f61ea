"""Bad data and configurations from the outside: every command refuses them before it trains or writes anything, with
exit code 2 and one line that names the file, the field, the value and the bound."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from models.train import main as train
from tests.end_to_end.spoilt import (
    CLICKS,
    GWEN,
    LOG,
    ROWS,
    World,
    cell,
    check,
    code_of,
    column,
    further,
    model,
    spec,
    training,
)
from tests.market import Market
from tests.models.data.readers.test_kuairand import CONFIGS, write_source


def test_the_small_world_itself_trains(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.write()
    assert world.train() == 0
    assert world.left() == ["m-seed1"]


NAN, INFINITE = float("nan"), float("inf")
DATA = {
    "a label of 2": (cell("log", "click", 2), ("log.", "column 'click'", "row 7: 2", "must be 0 or 1")),
    "a label of a half": (cell("log", "click", 0.5), ("column 'click'", "row 7: 0.5", "must be 0 or 1")),
    "no label": (cell("log", "click", None), ("column 'click'", "row 7: None", "must be 0 or 1")),
    "a label in words": (column("log", "click", ["yes", "no"] * 30), ("column 'click'", "String", "must be 0 or 1")),
    "NaN of a user": (cell("users", "age", NAN, 3), ("users.", "column 'age'", "row 3: nan", "finite number")),
    "NaN of an ad": (cell("ads", "price", NAN, 3), ("ads.", "column 'price'", "row 3: nan", "finite number")),
    "NaN of the context": (cell("log", "hour", NAN), ("log.", "column 'hour'", "row 7: nan", "finite number")),
    "infinity": (cell("log", "hour", -INFINITE), ("log.", "column 'hour'", "row 7: -inf", "finite number")),
    "beyond 32 bits": (cell("ads", "price", 1e39, 3), ("column 'price'", "row 3: 1e+39", "3.4e+38")),
    "a number in words": (cell("users", "age", "old", 3), ("users.", "column 'age'", "'old'")),
    "a bid below 0": (cell("ads", "bid", -1.0, 3), ("ads.", "column 'bid'", "row 3: -1.0", "from 0 up")),
    "a user without id": (cell("users", "user", None, 3), ("users.", "column 'user'", "row 3: None")),
    "a row without user": (cell("log", "user", None), ("log.", "column 'user'", "row 7: None")),
    "a row without ad": (cell("log", "ad", None), ("log.", "column 'ad'", "row 7: None")),
    "a row without time": (cell("log", "time", None), ("log.", "column 'time'", "row 7: None")),
    "an ad twice": (cell("ads", "ad", 0, 3), ("ads.", "column 'ad'", "row 3: 0", "twice")),
    "no label column": (column("log", "click", None), ("log.", "no column 'click'", "it has user, ad, time")),
    "no context column": (spec(context_features=[{"column": "tab"}]), ("log.", "no column 'tab'", "it has")),
    "no user column": (spec(user_features=[{"column": "town"}]), ("users.", "no column 'town'", "it has user, city")),
    "no ad column": (spec(ad_features=[{"column": "hue"}], histories=[]), ("ads.", "no column 'hue'", "it has ad")),
    "no request column": (spec(request=["session"]), ("log.", "no column 'session'", "it has")),
    "a history too long": (
        spec(histories=[CLICKS | {"max_length": 1001}]),
        ("dataset.yaml", "histories.0.max_length", "1001", "1000"),
    ),
    "a history of no field": (
        spec(histories=[CLICKS | {"fields": ["hue"]}]),
        ("dataset.yaml", "history 'clicks'", "not declared: ['hue']"),
    ),
    "an unknown key": (spec(lable="click"), ("dataset.yaml", "lable", "not permitted", "'click'")),
    "an unknown key of a feature": (
        spec(user_features=[{"column": "city", "min": 3}]),
        ("dataset.yaml", "user_features.0.min", "not permitted", "3"),
    ),
    "an empty training split": (
        spec(split={"valid_from": 0, "test_from": 50}),
        ("log.", "split 'train' is empty", "'valid': 50"),
    ),
    "an empty validation split": (
        spec(split={"valid_from": 90, "test_from": 99}),
        ("log.", "split 'valid' is empty", "split.valid_from is 90"),
    ),
    "no file": (spec(files={"log": "absent.csv"}), ("absent.csv", "no such file")),
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("name", DATA)
def test_data(name: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, parts = DATA[name]
    world = World(tmp_path, suffix)
    change(world)
    world.write()
    for command in (world.train, world.prepare):
        check(command(), capsys, *parts)
        assert world.left() == []
        assert not list(tmp_path.glob("prepared/*/"))


ONE_CLASS = {"train": range(40), "valid": range(40, 50), "test": range(50, ROWS)}


@pytest.mark.parametrize("split", ONE_CLASS)
@pytest.mark.parametrize("clicks", [0, 1])
def test_a_split_of_one_class(split: str, clicks: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world, rows = World(tmp_path), ONE_CLASS[split]
    world.tables["log"]["click"] = [clicks if i in rows else click for i, click in enumerate(LOG["click"])]
    world.write()
    said = f"has {clicks * len(rows)} of {len(rows)} impressions with the label"
    for kind in (GWEN, {"kind": "qscore"}):
        world.model = dict(kind)
        world.write()
        check(world.train(), capsys, "prepared/small", f"split {split!r}", said, "the label 'click'")
        assert world.left() == []


@pytest.mark.parametrize("given", [{}, {"test_from": 40}])
def test_no_validation_split(given: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.spec["split"] = given
    world.write()
    for command in (world.train, world.tune):
        check(command(), capsys, "split 'valid' is empty", "split.valid_from")
        assert world.left() == []


WIDE = {"kind": "wide-deep", "embedding": 4, "hidden": [4]}
CONFIGS_REFUSED = {
    "an unknown key": (further(modle={}), ("m.yaml", "modle", "not permitted")),
    "an unknown key of the model": (model(**GWEN, hiden=[8]), ("m.yaml", "model.gwen.hiden", "not permitted", "[8]")),
    "an unknown key of training": (training(epoch=3), ("m.yaml", "training.epoch", "not permitted", "3")),
    "an unknown kind": (model(kind="xgb"), ("m.yaml", "'xgb'", "'gwen'")),
    "no kind": (model(embedding=4), ("m.yaml", "model", "'kind'")),
    "no dataset": (further(dataset="no.yaml"), ("m.yaml", "'no.yaml'")),
    "no epochs": (training(epochs=0), ("m.yaml", "training.epochs", "0", "greater than 0")),
    "an infinite rate": (training(learning_rate=INFINITE), ("m.yaml", "training.learning_rate", "inf", "finite")),
    "an embedding too wide": (model(**{**GWEN, "embedding": 9999}), ("m.yaml", "embedding", "9999", "4096")),
    "a layer of 0": (model(**{**GWEN, "hidden": [0]}), ("m.yaml", "model.gwen.hidden.0", "0", "greater than 0")),
    "a cross of no field": (
        model(**WIDE, crosses=[["context.tab", "ad.brand"]]),
        ("m.yaml", "model.crosses", "'context.tab'", "clicks", "'small'"),
    ),
    "a cross of a number": (
        model(**WIDE, crosses=[["user.age", "ad.brand"]]),
        ("m.yaml", "model.crosses", "'user.age' with ids"),
    ),
    "a scene that is none": (
        model(kind="mtl", embedding=4, hidden=[4], scene="tab"),
        ("m.yaml", "model.scene", "'tab'", "'scene'"),
    ),
    "fields of COLD": (
        model(kind="cold", embedding=4, hidden=[4], fields=["ad.hue"]),
        ("m.yaml", "model.fields", "'ad.hue'", "ad.brand"),
    ),
    "fields of COLD without the ad": (
        model(kind="cold", embedding=4, hidden=[4], fields=["user.city"]),
        ("m.yaml", "model.fields", "'user.city'", "nothing of the ad"),
    ),
    "a history to start from": (
        training(pretraining={"history": "likes", "field": "ad"}),
        ("m.yaml", "training.pretraining", "'likes'", "clicks: ad/brand"),
    ),
    "a field to start from": (
        training(pretraining={"history": "clicks", "field": "price"}),
        ("m.yaml", "training.pretraining", "'price'", "clicks: ad/brand"),
    ),
    "a machine before the wrong model": (
        lambda world: (model(kind="lr")(world), training(pretraining={"fm_epochs": 1})(world)),
        ("m.yaml", "training.pretraining", "fm_epochs is 1", "a lr"),
    ),
    "one machine before two widths": (
        lambda world: (
            further(rocket={"booster": {**GWEN, "embedding": 8}, "share": False})(world),
            training(pretraining={"fm_epochs": 1})(world),
        ),
        ("m.yaml", "training.pretraining", "model.embedding 4", "has 8"),
    ),
    "a booster of no field": (
        further(rocket={"booster": {**WIDE, "crosses": [["context.tab", "ad.ad"]]}}),
        ("m.yaml", "model.crosses", "'context.tab'"),
    ),
    "one value of no field": (
        training(only={"field": "tab", "value": 1}),
        ("m.yaml", "training.only.field", "'tab'", "scene"),
    ),
    "one value that is none": (training(only={"field": "scene", "value": "z"}), ("scene", "'z'", "a, b")),
}


@pytest.mark.parametrize("name", CONFIGS_REFUSED)
def test_configurations(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, parts = CONFIGS_REFUSED[name]
    world = World(tmp_path)
    change(world)
    world.write()
    check(world.train(), capsys, *parts)
    assert world.left() == []
    if "only" not in world.training and "rocket" not in world.further:
        check(world.tune(), capsys, *parts)
        assert world.left() == []


def test_what_only_the_data_tell_leaves_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.model["embedding"] = 16
    training(pretraining={"history": "clicks", "field": "ad"})(world)
    world.write()
    check(world.train(), capsys, "training.pretraining", "field 'ad'", "5 different ids", "more than 16")
    assert world.left() == []


def test_no_user_to_choose_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.tables["log"]["click"] = [user % 2 for user in LOG["user"]]
    training(monitor="gauc")(world)
    world.write()
    check(world.train(), capsys, "split 'valid'", "no GAUC", "training.monitor")
    assert world.left() == []


OPTIONS = {
    "a seed below 0": (["--seed", "-1"], ("--seed", "-1", "at least 0")),
    "a seed twice": (["--seed", "1", "1"], ("--seed", "[1, 1]", "twice")),
    "a seed too large": (["--seed", str(2**31)], ("--seed", "2147483648", "at most 2147483647")),
    "no thread": (["--threads", "0"], ("--threads", "0", "at least 1")),
    "a file as folder": (["--out", "FILE"], ("--out", "afile", "a folder is needed")),
    "a file on the way": (["--prepared", "FILE/x"], ("--prepared", "afile", "a folder is needed")),
    "a folder as file": (["--json", "."], ("--json", "a file is needed")),
    "no folder for a file": (["--json", "nowhere/m.json"], ("--json", "nowhere/m.json", "no folder nowhere")),
    "no data": (["--data", "nowhere"], ("nowhere/log.parquet", "no such file")),
    "a time after all rows": (["--since", "99"], ("no training row is at 99", "the last is at 39")),
    "no checkpoint to continue": (["--continue-from", "nowhere"], ("nowhere/config.json", "cannot be read")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_train(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more, parts = OPTIONS[name]
    world = World(tmp_path)
    world.write()
    (tmp_path / "afile").write_text("")
    check(world.train(*(each.replace("FILE", str(tmp_path / "afile")) for each in more)), capsys, *parts)
    assert world.left() == []
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("count", ["0", "513"])
def test_partitions_of_prepare(count: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path)
    world.write()
    check(world.prepare("--partitions", count), capsys, f"partitions is {count}", "1 to 512")
    assert not list(tmp_path.glob("prepared/*/"))


KUAIRAND = {
    "a label of 2": ("impressions_valid", "is_click", 2, 1, ("impressions_valid.parquet", "'is_click'", "row 1: 2")),
    "NaN": ("users", "register_days", NAN, 2, ("users.parquet", "'register_days'", "row 2: nan")),
    "infinity": ("videos", "video_duration", INFINITE, 0, ("videos.parquet", "'video_duration'", "row 0: inf")),
    "no id": ("impressions_train", "video_id", None, 3, ("impressions_train.parquet", "'video_id'", "row 3: None")),
}


@pytest.mark.parametrize("name", KUAIRAND)
def test_kuairand(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, field, value, row, parts = KUAIRAND[name]
    write_source(tmp_path)
    replace_cell(tmp_path / f"{file}.parquet", field, value, row)
    arguments = [str(CONFIGS.parent / "kuairand-lr.yaml"), "--data", str(tmp_path), "--threads", "1", "--quiet"]
    places = ["--prepared", str(tmp_path / "prepared"), "--out", str(tmp_path / "checkpoints")]
    check(code_of(train, arguments + places), capsys, *parts)
    assert not list(tmp_path.glob("prepared/*/"))
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize(
    ("file", "field", "value", "parts"),
    [
        ("log", "click", 3, ("column 'click'", "row 5: 3", "must be 0 or 1")),
        ("ads", "quality", NAN, ("ads.parquet", "column 'quality'", "row 5: nan", "finite")),
        ("users", "user_id", None, ("users.parquet", "column 'user_id'", "row 5: None")),
    ],
)
def test_a_marketplace(
    file: str, field: str, value: object, parts: tuple[str, ...], market: Market, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(market.raw, tmp_path / "raw")
    place = tmp_path / "raw" / f"{file}.parquet"
    replace_cell(place if place.exists() else min((tmp_path / "raw" / file).iterdir()), field, value, 5)
    arguments = [str(CONFIGS.parent / "marketplace-lr.yaml"), "--data", str(tmp_path / "raw"), "--quiet"]
    places = ["--prepared", str(tmp_path / "prepared"), "--out", str(tmp_path / "checkpoints")]
    check(code_of(train, arguments + places), capsys, *parts)
    assert not list(tmp_path.glob("prepared/*/"))
    assert not (tmp_path / "checkpoints").exists()


def replace_cell(path: Path, field: str, value: object, row: int) -> None:
    frame = pl.read_parquet(path)
    values = frame[field].to_list()
    values[row] = value
    frame.with_columns(pl.Series(field, values, strict=False)).write_parquet(path)
