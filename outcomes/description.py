"""The dataset that the training log continues: its dataset.yaml tells which columns are features, and their types.

Only `source: table` with a table of ads. The training log has the same columns, so that its own description is the
same too, but for what serving decides: requests by id, histories as logged, and no user table, as every request has the
profile it was served with.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from outcomes.durable import write, write_bytes
from outcomes.errors import OutcomesError

REQUEST = "request_id"
CLICK = "click"
Kind = type[pl.DataType]


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of the training log."""

    column: str
    kind: str
    """integer, text, number, or a list of integers or texts."""
    separator: str | None = None
    """A text column with several values: what stands between them."""


@dataclass(frozen=True, slots=True)
class History:
    """One behaviour sequence."""

    name: str
    events: tuple[str, ...]
    max_length: int

    @property
    def column(self) -> str:
        """Of the training log."""
        return f"served_{self.name}"


@dataclass(frozen=True, slots=True)
class Description:
    """What is to be written."""

    given: Mapping[str, Any]
    """The dataset.yaml."""
    folder: Path
    user: Feature
    ad: Feature
    profile: tuple[Feature, ...]
    context: tuple[Feature, ...]
    histories: tuple[History, ...]

    @property
    def time(self) -> str:
        """Column with the time of the request."""
        return str(self.given["time"])

    @property
    def label(self) -> str:
        """Column with the click."""
        return str(self.given["label"])

    @property
    def position(self) -> str:
        """Column with the position, from 0."""
        return str(self.given.get("position") or "position")

    def copy_tables(self, root: Path) -> None:
        """Put the ads, and the vectors of ad features, beside the log."""
        for place, path in self._tables():
            write(root / place, partial(shutil.copyfile, path))

    def write_yaml(self, root: Path, valid_from: int | None, test_from: int | None) -> None:
        """The description of the training log, split at these times."""
        given = {name: value for name, value in self.given.items() if name not in ("labels", "truth", "split")}
        suffix = self._ads()[0].suffix
        split = {name: at for name, at in (("valid_from", valid_from), ("test_from", test_from)) if at is not None}
        histories = []
        for history, known in zip(self.histories, self.given.get("histories", ()), strict=True):
            histories.append({**known, "source": "logged", "column": history.column})
        made = {
            **given,
            "name": f"{given['name']}-served",
            "files": {"log": "log/date=*/*.parquet", "ads": f"ads/*{suffix}"},
            "request": [REQUEST],
            "position": self.position,
            "histories": histories,
            **({"split": split} if split else {}),
        }
        head = "# Written by `adrank outcomes`: what serving saw, and what came of it.\n"
        write_bytes(root / "dataset.yaml", (head + yaml.safe_dump(made, sort_keys=False)).encode())

    def _ads(self) -> list[Path]:
        return sorted(self.folder.glob(self.given["files"]["ads"]))

    def _tables(self) -> list[tuple[str, Path]]:
        found = [(f"ads/{path.name}", path) for path in self._ads()]
        for feature in self.given["ad_features"]:
            found += [(place, self.folder / place) for place in (feature.get("vectors") or {}).values()]
        return found


def read_description(path: Path) -> Description:
    """OutcomesError names what cannot be used of a dataset.yaml and its files, which stand beside it."""
    try:
        given = yaml.safe_load(path.read_text())
        return _described(given, path.parent)
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, pl.exceptions.PolarsError) as error:
        raise OutcomesError(f"{path}: cannot be used: {type(error).__name__}: {error}") from error
    except OutcomesError as error:
        raise OutcomesError(f"{path}: {error}") from error


def _described(given: Mapping[str, Any], folder: Path) -> Description:
    if given["source"] != "table" or "ads" not in given.get("files", {}):
        raise OutcomesError("a training log can continue datasets of source 'table' with a table of ads only")
    log, ads = _schema(folder, given["files"]["log"]), _schema(folder, given["files"]["ads"])
    users = _schema(folder, given["files"]["users"]) if "users" in given["files"] else log
    is_feature = given["user"] in [each["column"] for each in given.get("user_features", ())]
    user = Feature(given["user"], _kind(log[given["user"]]) if is_feature else "text")  # online any id is taken
    ad = Feature(given["ad"], _kind(ads[given["ad"]]))
    profile = [_feature(each, users) for each in given.get("user_features", ()) if each["column"] != given["user"]]
    context = [_feature(each, log) for each in given.get("context_features", ())]
    histories = []
    for each in given.get("histories", ()):
        if not each.get("of_ads", True):
            raise OutcomesError(f"history {each['name']!r} is not of ads: such are not written as they were served")
        histories.append(History(each["name"], tuple(each.get("events", (CLICK,))), each.get("max_length", 50)))
    described = Description(given, folder, user, ad, tuple(profile), tuple(context), tuple(histories))
    own = (described.time, described.label, described.position, user.column, ad.column, REQUEST)
    columns = [*own, *(each.column for each in (*profile, *context)), *(each.column for each in histories)]
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise OutcomesError(f"the training log would have these columns twice: {', '.join(twice)}")
    return described


def _schema(folder: Path, pattern: str) -> pl.Schema:
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise OutcomesError(f"{folder / pattern}: no such file")
    scan = pl.scan_parquet(paths[0]) if paths[0].suffix == ".parquet" else pl.scan_csv(paths[0])
    return scan.collect_schema()


def _feature(each: Mapping[str, Any], schema: pl.Schema) -> Feature:
    if each.get("kind", "categorical") in ("bucketed", "number"):
        return Feature(each["column"], "number")
    return Feature(each["column"], _kind(schema[each["column"]]), each.get("separator"))


def _kind(found: pl.DataType) -> str:
    if isinstance(found, pl.List):
        return f"list of {_kind(found.inner)}"  # type: ignore[arg-type]
    return "integer" if found.is_integer() or found == pl.Boolean else "text"
