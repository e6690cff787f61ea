"""Plain Parquet or CSV files: `files` of the description names log, users, ads and behaviours; globs are allowed.

Without users or ads their features are taken from the log: of a user those of each impression, of an ad those of
its last training row (gathering.py).
A column `split` in the log, with the values train, valid and test, says how it is split.
CSV: an empty field is a missing value; a column's type is inferred from the first 16 MB of a file.
"""

from pathlib import Path

import pyarrow as pa

from bundle.schema import Kind
from models.data.readers.files import TextFormat, require, stream, table
from models.data.readers.raw import SPLIT, Raw, Reader, Table, wanted, wanted_behaviours
from models.data.spec import DataError, DatasetSpec

NAMES = ("log", "users", "ads", "behaviours")
SUFFIXES = (".parquet", ".csv")


def files(spec: DatasetSpec, data: Path) -> list[Path]:
    """Every file that a name or glob of the description matches, in the order of names."""
    if strange := sorted(set(spec.files) - set(NAMES)):
        raise DataError(f"{spec.name}: files has {strange}, known: {', '.join(NAMES)}")
    if "log" not in spec.files:
        raise DataError(f"{spec.name}: files names no log")
    return [path for name in NAMES for path in _paths(spec, data, name)]


def open_source(spec: DatasetSpec, data: Path, chunk_rows: int) -> Raw:
    """What the files hold."""
    text = _text(spec)
    needed = wanted(spec, users_in_log="users" not in spec.files, ads_in_log="ads" not in spec.files)
    behaviours = _paths(spec, data, "behaviours")
    return Raw(
        log=stream(_paths(spec, data, "log"), needed, chunk_rows, text, optional=[SPLIT]),
        users=_table(spec, data, "users", text),
        ads=_table(spec, data, "ads", text),
        behaviours=stream(behaviours, wanted_behaviours(spec), chunk_rows, text) if behaviours else None,
    )


def _paths(spec: DatasetSpec, data: Path, name: str) -> list[Path]:
    pattern = spec.files.get(name)
    if pattern is None:
        return []
    if not pattern or Path(pattern).is_absolute():
        raise DataError(f"{spec.name}: files.{name} is {pattern!r}, a path relative to the data folder is needed")
    paths = sorted(data.glob(pattern))
    if not paths:
        raise DataError(f"{data / pattern}: no such file")
    for path in paths:
        if path.suffix not in SUFFIXES:
            raise DataError(f"{path}: {path.suffix or 'no suffix'}, known: {', '.join(SUFFIXES)}")
    return require(paths)


def _table(spec: DatasetSpec, data: Path, name: str, text: TextFormat) -> Table | None:
    paths = _paths(spec, data, name)
    return table(paths, text) if paths else None


def _text(spec: DatasetSpec) -> TextFormat:
    """Numbers are read as numbers even where the first of them are whole."""
    features = (*spec.user_features, *spec.context_features, *spec.ad_features)
    numbers = [f.column for f in features if f.kind in (Kind.BUCKETED, Kind.NUMBER)]
    truths = (spec.truth, *(label.truth for label in spec.labels.values()))
    numbers += [name for name in (spec.bid, *truths) if name is not None]
    keys = {spec.user, spec.ad, spec.time, spec.label}
    return TextFormat(types={name: pa.float64() for name in numbers if name not in keys})


READER = Reader(files, open_source)
