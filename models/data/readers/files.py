"""Parquet and CSV files read in pieces of bounded size. Every failure is a DataError that names the file."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from models.data.readers.raw import Chunk, Stream, Table
from models.data.spec import DataError

BLOCK_BYTES = 16 << 20
"""Text is parsed in blocks of this size, and column types are inferred from the first."""


@dataclass(frozen=True, slots=True)
class TextFormat:
    """How a text file is laid out."""

    separator: str = ","
    header: tuple[str, ...] | None = None
    """Column names; None: the first line holds them."""
    types: Mapping[str, pa.DataType] | None = None
    """Types of some columns; the others are inferred."""
    nulls: tuple[str, ...] = ("",)
    quoted: bool = True
    encoding: str = "utf8"


CSV = TextFormat()


def require(paths: Sequence[Path]) -> list[Path]:
    """The paths. DataError names the first that is no file."""
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path}: no such file")
    return list(paths)


def stream(
    paths: Sequence[Path], columns: Sequence[str], chunk_rows: int, text: TextFormat = CSV, optional: Sequence[str] = ()
) -> Stream:
    """Several files with the same columns as one log. DataError when a file lacks one of `columns`."""
    headers = {path: header_of(path, text) for path in paths}
    for path, header in headers.items():
        need_columns(str(path), header, columns)
    first = headers[paths[0]]
    kept = [*columns, *(name for name in optional if name in first and name not in columns)]
    for path, header in headers.items():
        need_columns(str(path), header, kept)

    def chunks() -> Iterator[Chunk]:
        for path in paths:
            yield from _chunks(path, kept, chunk_rows, text)

    return Stream(", ".join(path.name for path in paths), tuple(first), sum(_rows(p, text) for p in paths), chunks)


def table(paths: Sequence[Path], text: TextFormat = CSV) -> Table:
    """Files with the same columns, whole, one after the other. DataError when they hold no row."""
    whole = stream(paths, header_of(paths[0], text), 1 << 30, text)
    frames = [chunk.frame for chunk in whole.chunks()]
    if not frames:
        raise DataError(f"{paths[0]}: holds no rows")
    try:
        return Table(", ".join(map(str, paths)), pl.concat(frames))
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{paths[0]}: the files do not fit together: {_first_line(error)}") from error


def need_columns(file: str, header: Sequence[str], columns: Sequence[str]) -> None:
    """DataError unless `columns` are all in `header`."""
    if missing := [name for name in columns if name not in header]:
        raise DataError(f"{file}: there is no column {', '.join(map(repr, missing))}; it has {', '.join(header)}")


def header_of(path: Path, text: TextFormat = CSV) -> list[str]:
    """The column names of a file."""
    require([path])
    try:
        if path.suffix == ".parquet":
            return [str(name) for name in pa.parquet.read_schema(path).names]
        if text.header is not None:
            return list(text.header)
        # "utf-8-sig" drops the byte order mark that spreadsheets write; pyarrow drops it by itself.
        with path.open(encoding="utf-8-sig" if text.encoding == "utf8" else text.encoding, newline="") as file:
            return next(csv.reader(file, delimiter=text.separator), [])
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read: {_first_line(error)}") from error


def _chunks(path: Path, columns: Sequence[str], chunk_rows: int, text: TextFormat) -> Iterator[Chunk]:
    first = 0
    try:
        for batch in _batches(path, columns, chunk_rows, text):
            for start in range(0, batch.num_rows, chunk_rows):
                piece = batch.slice(start, chunk_rows)
                frame = pl.from_arrow(piece)
                assert isinstance(frame, pl.DataFrame)
                yield Chunk(str(path), first, frame)
                first += piece.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read after row {first}: {_named(error, header_of(path, text))}") from error


def _batches(path: Path, columns: Sequence[str], chunk_rows: int, text: TextFormat) -> Iterator[pa.RecordBatch]:
    if path.suffix == ".parquet":
        with pa.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=min(chunk_rows, 1 << 20), columns=list(columns))
    else:
        with _open_text(path, text, columns) as reader:
            yield from reader


def _open_text(path: Path, text: TextFormat, columns: Sequence[str]) -> pa.csv.CSVStreamingReader:
    return pa.csv.open_csv(
        path,
        read_options=pa.csv.ReadOptions(
            block_size=BLOCK_BYTES, column_names=list(text.header) if text.header else None, encoding=text.encoding
        ),
        parse_options=pa.csv.ParseOptions(delimiter=text.separator, quote_char='"' if text.quoted else False),
        convert_options=pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types=dict(text.types or {}),
            null_values=list(text.nulls),
            strings_can_be_null=True,
        ),
    )


def _rows(path: Path, text: TextFormat) -> int:
    """Rows of a file: exact for Parquet, from the length of the first lines for text."""
    if path.suffix == ".parquet":
        return int(pa.parquet.read_metadata(path).num_rows)
    with path.open("rb") as file:
        sample = file.read(1 << 20)
    lines = sample.count(b"\n") - (text.header is None)
    return max(1, lines * path.stat().st_size // max(1, len(sample)))


def _named(error: Exception, header: Sequence[str]) -> str:
    """What is wrong, with the name of the column in place of its number."""

    def name(number: re.Match[str]) -> str:
        return f"column {header[int(number[1])]!r}" if int(number[1]) < len(header) else number[0]

    return re.sub(r"In CSV column #(\d+)", name, _first_line(error))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
