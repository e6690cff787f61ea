"""A small log, its description and a configuration, to be spoilt in one place; and what must refuse it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from models.data.command import main as prepare
from models.train import main as train
from models.tune import main as tune

ROWS = 60
LOG: Mapping[str, list[Any]] = {
    "user": [i % 7 for i in range(ROWS)],
    "ad": [i % 5 for i in range(ROWS)],
    "time": list(range(ROWS)),
    "click": [int(i % 3 == 0) for i in range(ROWS)],
    "scene": ["ab"[i % 2] for i in range(ROWS)],
    "hour": [float(i % 24) for i in range(ROWS)],
}
USERS: Mapping[str, list[Any]] = {"user": list(range(7)), "city": ["Lyon", "Rome"] * 3 + ["Ulm"], "age": [30.0] * 7}
ADS: Mapping[str, list[Any]] = {"ad": list(range(5)), "brand": list("xyxyx"), "price": [2.0] * 5, "bid": [1.0] * 5}
CLICKS = {"name": "clicks", "source": "log", "fields": ["ad", "brand"], "max_length": 10}
SPEC: Mapping[str, Any] = {
    "name": "small",
    "source": "table",
    "label": "click",
    "user": "user",
    "ad": "ad",
    "time": "time",
    "bid": "bid",
    "user_features": [{"column": "city"}, {"column": "age", "kind": "number"}],
    "context_features": [{"column": "scene"}, {"column": "hour", "kind": "bucketed", "buckets": 4}],
    "ad_features": [{"column": "ad"}, {"column": "brand"}, {"column": "price", "kind": "number"}],
    "histories": [CLICKS],
    "split": {"valid_from": 40, "test_from": 50},
}
GWEN: Mapping[str, Any] = {"kind": "gwen", "embedding": 4, "hidden": [4]}


class World:
    """A folder with a small log, its description and a configuration, to be changed before a command sees them."""

    def __init__(self, folder: Path, suffix: str = "parquet") -> None:
        self.folder, self.suffix = folder, suffix
        self.tables = {name: dict(table) for name, table in (("log", LOG), ("users", USERS), ("ads", ADS))}
        self.spec: dict[str, Any] = dict(SPEC) | {"files": {name: f"{name}.{suffix}" for name in self.tables}}
        self.model: dict[str, Any] = dict(GWEN)
        self.training: dict[str, Any] = {"epochs": 1, "batch_size": 16}
        self.further: dict[str, Any] = {}

    def write(self) -> None:
        for name, columns in self.tables.items():
            frame = pl.DataFrame(columns, strict=False)
            path = self.folder / f"{name}.{self.suffix}"
            frame.write_parquet(path) if self.suffix == "parquet" else frame.write_csv(path)
        (self.folder / "dataset.yaml").write_text(yaml.safe_dump(self.spec))
        config = {"name": "m", "dataset": "dataset.yaml", "model": self.model, "training": self.training}
        (self.folder / "m.yaml").write_text(yaml.safe_dump(config | self.further))

    def train(self, *more: str) -> int:
        places = ["--prepared", str(self.folder / "prepared"), "--out", str(self.folder / "checkpoints")]
        given = [str(self.folder / "m.yaml"), "--data", str(self.folder), *places, "--threads", "1", "--quiet", *more]
        return code_of(train, given)

    def tune(self, *more: str) -> int:
        (self.folder / "space.yaml").write_text("tune: {training.clip: {kind: float, low: 1, high: 9}}\n")
        places = ["--prepared", str(self.folder / "prepared"), "--out", str(self.folder / "tune")]
        space = ["--space", str(self.folder / "space.yaml"), "--trials", "1", "--threads", "1", "--quiet"]
        return code_of(tune, [str(self.folder / "m.yaml"), "--data", str(self.folder), *places, *space, *more])

    def prepare(self, *more: str) -> int:
        out = ["--out", str(self.folder / "prepared/small"), "--quiet"]
        return code_of(prepare, [str(self.folder / "dataset.yaml"), "--data", str(self.folder), *out, *more])

    def left(self) -> list[str]:
        """What a command made, prepared data excepted: they are whole, and kept for the next attempt."""
        made = [*self.folder.glob("checkpoints/*"), *self.folder.glob("tune/*"), *self.folder.glob("**/*.tmp")]
        return [path.name for path in made] + [path.name for path in self.folder.glob("prepared/.*")]


def code_of(main: Callable[[list[str]], int], arguments: list[str]) -> int:
    """A command's exit code, also where argparse leaves."""
    try:
        return main(arguments)
    except SystemExit as left:
        return int(left.code or 0)


def check(code: int, capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """Exit code 2, and a last line on standard error that has all parts."""
    said = capsys.readouterr().err.splitlines()
    assert code == 2, said
    missing = [part for part in parts if part not in said[-1]]
    assert not missing, said[-1]
    assert "Traceback" not in "".join(said)


def cell(table: str, column: str, value: object, row: int = 7) -> Callable[[World], None]:
    """One value of a table replaced; text for all of a column where it is text."""

    def change(world: World) -> None:
        values = list(world.tables[table][column])
        values[row] = value
        world.tables[table][column] = [str(each) for each in values] if isinstance(value, str) else values

    return change


def column(table: str, name: str, values: object) -> Callable[[World], None]:
    """A whole column replaced, or with None left out."""

    def change(world: World) -> None:
        if values is None:
            del world.tables[table][name]
        else:
            assert isinstance(values, list)
            world.tables[table][name] = values

    return change


def spec(**entries: Any) -> Callable[[World], None]:
    """Entries of the dataset's description."""
    return lambda world: world.spec.update(entries)


def model(**entries: Any) -> Callable[[World], None]:
    """The whole model."""

    def change(world: World) -> None:
        world.model = entries

    return change


def training(**entries: Any) -> Callable[[World], None]:
    """Settings of the training."""
    return lambda world: world.training.update(entries)


def further(**entries: Any) -> Callable[[World], None]:
    """Other keys of the configuration."""
    return lambda world: world.further.update(entries)
