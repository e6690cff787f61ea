"""Raw columns brought to one form: Int64 or String for categories, lists of these, Float64 for numbers, Int64 for time.

Every refusal is a DataError that names the place (file and column), the row and the value.
"""

import numpy as np
import numpy.typing as npt
import polars as pl

from bundle.encoding import Column, Ragged
from bundle.schema import Kind
from models.data.prepared import SPLITS
from models.data.spec import DataError, FeatureColumn

MISSING_INTEGER = -(2**63)
"""Stands for null in an integer column on its way to the encoder; refused as a value, so it is in no vocabulary."""
MISSING_TEXT = b"\xff"
"""The same for text: no valid UTF-8, so it is in no vocabulary."""
LARGEST = float(np.finfo(np.float32).max)
"""Encoded numbers and bids are 32 bits wide: what is larger would become infinite."""


def refuse(where: str, series: pl.Series, bad: pl.Series, first_row: int, expected: str) -> None:
    """DataError with the first row for which `bad` holds, if there is one."""
    rows = bad.fill_null(value=False).arg_true()
    if len(rows):
        row = int(rows[0])
        value = series[row].to_list() if isinstance(series.dtype, pl.List) else series[row]
        raise DataError(f"{where}, row {first_row + row}: {value!r}, {expected}")


def category(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Int64 or String. 3.0 is the integer 3; fractions are refused, NaN is null."""
    dtype = series.dtype
    if dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum | pl.Date | pl.Null):
        return series.cast(pl.String)
    if dtype == pl.Boolean or dtype.is_integer():
        whole = series.cast(pl.Int64, strict=False)
        refuse(where, series, series.is_not_null() & whole.is_null(), first_row, "it does not fit in 64 bits")
        refuse(where, series, whole == MISSING_INTEGER, first_row, "this value stands for a missing one")
        return whole
    if dtype.is_float():
        series = series.fill_nan(None)
        bad = (series != series.floor()) | (series.abs() >= 2.0**63)
        refuse(
            where,
            series,
            bad,
            first_row,
            "a categorical value must be an integer or text; declare it bucketed or number",
        )
        return series.cast(pl.Int64)
    raise DataError(f"{where}: type {dtype} cannot be categorical")


def several(series: pl.Series, separator: str | None, where: str, first_row: int = 0) -> pl.Series:
    """List(Int64) or List(String), without nulls inside; an absent list is empty."""
    if separator is not None:
        if series.dtype != pl.String:
            series = category(series, where, first_row).cast(pl.String)
        lists = series.str.split(separator).list.eval(pl.element().filter(pl.element() != ""))
    elif isinstance(series.dtype, pl.List):
        inner = series.dtype.inner
        if not (inner == pl.String or inner.is_integer()):
            raise DataError(f"{where}: type {series.dtype}, lists of integers or text are needed")
        wide = pl.Int64 if inner.is_integer() else pl.String
        lists = series.cast(pl.List(wide)).list.drop_nulls()
    else:
        raise DataError(f"{where}: type {series.dtype} holds no lists and no separator is given")
    return lists.fill_null(pl.lit([], dtype=lists.dtype).cast(lists.dtype)) if lists.null_count() else lists


def number(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Float64, NaN where there is none. Refused are text that is no number, NaN and infinity as values of their own (a
    missing one is null), and numbers beyond float32."""
    if not (series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.String, pl.Null)):
        raise DataError(f"{where}: type {series.dtype} is no number")
    numbers = series.cast(pl.Float64, strict=False)
    refuse(where, series, series.is_not_null() & numbers.is_null(), first_row, "a number is needed")
    odd = numbers.is_not_null() & ~numbers.is_finite()
    refuse(where, series, odd, first_row, "a finite number is needed; a missing one is null, in text nothing at all")
    large = numbers.abs() > LARGEST
    refuse(where, series, large, first_row, f"a number must lie within ±{LARGEST:.3g}, the range of 32-bit floats")
    return numbers.fill_null(float("nan"))


def time(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Int64 without nulls; dates become Unix milliseconds."""
    refuse(where, series, series.is_null(), first_row, "every row needs a time")
    if series.dtype.is_temporal():
        return series.cast(pl.Datetime("ms")).dt.epoch("ms")
    if not series.dtype.is_numeric():
        raise DataError(f"{where}: type {series.dtype} is no time; integers, or dates in Parquet, are needed")
    whole = series.cast(pl.Int64, strict=False)
    refuse(where, series, whole.is_null() | (whole != series), first_row, "a time must be a whole number")
    return whole


def key(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """A user or ad id: a category without nulls."""
    ids = category(series, where, first_row)
    refuse(where, series, ids.is_null(), first_row, "every row needs an id")
    return ids


def label(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Int8, 0 or 1."""
    if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
        raise DataError(f"{where}: type {series.dtype}, a label must be 0 or 1")
    values = series.cast(pl.Int8) if series.dtype == pl.Boolean else series
    bad = values.is_null() | ((values != 0) & (values != 1))
    refuse(where, series, bad, first_row, "a label must be 0 or 1")
    return series.cast(pl.Int8)


def split(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Int8: 0 train, 1 valid, 2 test."""
    named = series.cast(pl.String)
    refuse(where, series, named.is_null() | ~named.is_in(SPLITS), first_row, f"known: {', '.join(SPLITS)}")
    return named.replace_strict(dict(zip(SPLITS, range(len(SPLITS)), strict=True)), return_dtype=pl.Int8)


def position(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Int16 from 0."""
    whole = series.cast(pl.Int16, strict=False)
    bad = whole.is_null() | (whole != series) | (whole < 0)
    refuse(where, series, bad, first_row, "a position must be an integer from 0 to 32767")
    return whole


def probability(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Float32 within [0, 1]."""
    bad = ~number(series, where, first_row).is_between(0.0, 1.0)
    refuse(where, series, bad, first_row, "a probability from 0 to 1 is needed")
    return series.cast(pl.Float32)


def bid(series: pl.Series, where: str, first_row: int = 0) -> pl.Series:
    """Float64, finite as a 32-bit float too, not negative."""
    numbers = number(series, where, first_row)
    refuse(where, series, ~numbers.is_finite() | (numbers < 0), first_row, "a bid must be a number from 0 up")
    return numbers


def feature(series: pl.Series, column: FeatureColumn, where: str, first_row: int = 0) -> pl.Series:
    """A feature's column in the form its kind needs."""
    if column.kind is Kind.CATEGORICAL:
        return category(series, where, first_row)
    if column.kind is Kind.MULTIVALUED:
        return several(series, column.separator, where, first_row)
    return number(series, where, first_row)


def targets(series: pl.Series, separator: str | None, where: str, first_row: int = 0) -> pl.Series:
    """List(Int64) or List(String) of where an ad may be shown. Empty is everywhere: no value may be missing."""
    if isinstance(series.dtype, pl.List):
        refuse(where, series, series.list.eval(pl.element().is_null()).list.any(), first_row, "a value is missing")
    if separator is not None or isinstance(series.dtype, pl.List):
        return several(series, separator, where, first_row)
    values = category(series, where, first_row)
    return values.to_frame("value").select(pl.concat_list("value").list.drop_nulls()).to_series()


def encodable(series: pl.Series) -> Column:
    """A column of one of the forms above as the encoder takes it."""
    if isinstance(series.dtype, pl.List):
        lengths = series.list.len().fill_null(0).to_numpy()
        values = series.explode(empty_as_null=False, keep_nulls=False)
        return Ragged(flat(values), np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))))
    return flat(series)


def flat(series: pl.Series) -> npt.NDArray[np.generic]:
    """Int64, String or Float64 as int64, bytes or float64; null is a value that no vocabulary holds."""
    if series.dtype == pl.String:
        encoded = series.cast(pl.Binary).fill_null(MISSING_TEXT).to_list()
        return np.array(encoded, dtype=np.bytes_) if encoded else np.zeros(0, dtype="S1")
    if series.dtype == pl.Int64:
        return series.fill_null(MISSING_INTEGER).to_numpy()
    return series.to_numpy()
