"""MovieLens 100K and 1M (GroupLens): ratings as clicks, a rating of 4 or 5 being one.

    100K   u.data, u.item, u.user                 tab or | between fields, genres as 19 flags
    1M     ratings.dat, movies.dat, users.dat     :: between fields, genres as names

Both are handed on with the same columns: log user_id, movie_id, click, timestamp (Unix seconds); movies movie_id,
title, year, genres (list); users user_id, age, gender, occupation, zip. The rating itself is the label, and kept back.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow as pa

from models.data import columns
from models.data.readers.files import TextFormat, need_columns, require, stream
from models.data.readers.raw import Chunk, Raw, Reader, Stream, Table, wanted
from models.data.spec import DataError, DatasetSpec

CLICK_RATING = 4
SECOND = 1000
LOG_COLUMNS = ("user_id", "movie_id", "click", "timestamp")
GENRES = (
    *(
        "unknown",
        "Action",
        "Adventure",
        "Animation",
        "Children's",
        "Comedy",
        "Crime",
        "Documentary",
        "Drama",
        "Fantasy",
    ),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The order of the flags in u.item."""


@dataclass(frozen=True, slots=True)
class _Format:
    """One of the two layouts."""

    ratings: str
    movies: str
    users: str
    separator: str
    text: TextFormat
    user_fields: tuple[str, ...]
    movie_fields: int


def _text(separator: str, header: tuple[str, ...]) -> TextFormat:
    return TextFormat(separator, header, dict.fromkeys(header, pa.int64()), quoted=False, encoding="latin-1")


FORMATS = (
    _Format(
        "u.data",
        "u.item",
        "u.user",
        "|",
        _text("\t", ("user_id", "movie_id", "rating", "timestamp")),
        ("user_id", "age", "gender", "occupation", "zip"),
        5 + len(GENRES),
    ),
    _Format(
        "ratings.dat",
        "movies.dat",
        "users.dat",
        "::",
        # A field stands between two single colons, so every other column is empty.
        _text(":", ("user_id", "gap1", "movie_id", "gap2", "rating", "gap3", "timestamp")),
        ("user_id", "gender", "age", "occupation", "zip"),
        3,
    ),
)


def files(_spec: DatasetSpec, data: Path) -> list[Path]:
    """The three files of the format that the folder has."""
    found = _format(data)
    return require([data / found.ratings, data / found.movies, data / found.users])


def open_source(spec: DatasetSpec, data: Path, chunk_rows: int) -> Raw:
    """The ratings as a log, the movies as ads."""
    found = _format(data)
    need_columns(str(data / found.ratings), LOG_COLUMNS, wanted(spec, users_in_log=False, ads_in_log=False))
    ratings = stream([data / found.ratings], ["user_id", "movie_id", "rating", "timestamp"], chunk_rows, found.text)
    log = replace(ratings, columns=LOG_COLUMNS, chunks=lambda: _clicks(ratings))
    return Raw(log, _users(data / found.users, found), _movies(data / found.movies, found), time_unit_ms=SECOND)


def _format(data: Path) -> _Format:
    for each in FORMATS:
        if (data / each.ratings).is_file():
            return each
    raise DataError(f"{data}: neither {FORMATS[0].ratings} (100K) nor {FORMATS[1].ratings} (1M) is there")


def _clicks(ratings: Stream) -> Iterator[Chunk]:
    for chunk in ratings.chunks():
        rating = chunk.frame["rating"]
        bad = rating.is_null() | ~rating.is_between(1, 5)
        columns.refuse(f"{chunk.file}: column 'rating'", rating, bad, chunk.first_row, "a rating from 1 to 5 is needed")
        click = (rating >= CLICK_RATING).cast(pl.Int8).alias("click")
        yield replace(chunk, frame=chunk.frame.with_columns(click).select(LOG_COLUMNS))


def _lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    # Not splitlines(): in latin-1 it would also break lines at byte 0x85, which may stand in a title.
    text = path.read_text(encoding="latin-1")
    lines = [line.rstrip("\r").split(separator) for line in text.split("\n") if line]
    for i, line in enumerate(lines):
        if len(line) != fields:
            raise DataError(f"{path}, row {i}: {len(line)} fields, {fields} are needed: {separator.join(line)!r:.80}")
    return lines


def _integers(values: list[str], path: Path, name: str) -> pl.Series:
    texts = pl.Series(values, dtype=pl.String)
    whole = texts.cast(pl.Int64, strict=False)
    columns.refuse(f"{path}: column {name!r}", texts, whole.is_null(), 0, "an integer is needed")
    return whole


def _users(path: Path, found: _Format) -> Table:
    by_field = dict(zip(found.user_fields, zip(*_lines(path, found.separator, 5), strict=True), strict=True))
    frame = pl.DataFrame(
        {
            "user_id": _integers(list(by_field["user_id"]), path, "user_id"),
            "age": _integers(list(by_field["age"]), path, "age"),
            **{name: pl.Series(by_field[name], dtype=pl.String) for name in ("gender", "occupation", "zip")},
        }
    )
    return Table(str(path), frame)


def _movies(path: Path, found: _Format) -> Table:
    lines = _lines(path, found.separator, found.movie_fields)
    if found.movie_fields == 3:
        genres = [line[2].split("|") for line in lines]
    else:
        genres = [[name for name, flag in zip(GENRES, line[5:], strict=True) if flag == "1"] for line in lines]
    years = [re.search(r"\((\d{4})\)\s*$", line[1]) for line in lines]
    frame = pl.DataFrame(
        {
            "movie_id": _integers([line[0] for line in lines], path, "movie_id"),
            "title": pl.Series([line[1] for line in lines], dtype=pl.String),
            "year": pl.Series([int(year[1]) if year else None for year in years], dtype=pl.Int64),
            "genres": pl.Series(genres, dtype=pl.List(pl.String)),
        }
    )
    return Table(str(path), frame)


READER = Reader(files, open_source)
