"""Raw feature values -> arrays. The only encoder: training, export and serving all come through here.

`encode_rows` works on whole columns (training data, the ad catalogue), `encode_one` on a single mapping (a request);
a property test holds the two equal.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN, UNKNOWN, FeatureSchema, FieldSpec, Kind, Side
from bundle.vocabulary import Vocabulary

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ragged:
    """A column of lists: row i holds values[offsets[i]:offsets[i+1]]."""

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1


Column = npt.NDArray[Any] | Ragged


class Encoder:
    """A feature schema with its vocabularies."""

    def __init__(self, schema: FeatureSchema, vocabularies: Mapping[str, Vocabulary]) -> None:
        self.schema = schema
        self.vocabularies = dict(vocabularies)
        for side in (schema.user, schema.context, schema.ad):
            for field in side.fields:
                self._check(field)

    def _check(self, field: FieldSpec) -> None:
        if field.vocabulary is None:
            return
        vocabulary = self.vocabularies.get(field.vocabulary)
        if vocabulary is None:
            raise ContractError(f"field {field.name!r} needs vocabulary {field.vocabulary!r}, which is not there")
        if vocabulary.size != field.size:
            raise ContractError(f"field {field.name!r} has size {field.size}, its vocabulary {vocabulary.size}")

    def encode_one(self, side: Side, values: Mapping[str, object]) -> tuple[Int64, Float32]:
        """One row: ids int64[id_columns], numbers float32[number_columns]. Absent values are unknown, or the mean."""
        ids: list[int] = []
        for field in side.id_fields:
            value = values.get(field.name)
            if field.kind is Kind.BUCKETED:
                x = _number(value)
                ids.append(UNKNOWN if math.isnan(x) else bisect_right(field.edges, x) + FIRST_KNOWN)
            elif field.kind is Kind.CATEGORICAL:
                ids.append(self.vocabulary_of(field).id_of(value))
            else:
                ids.extend(self._several(field, value))
        numbers = [_scale(field, np.array([_number(values.get(field.name))]))[0] for field in side.number_fields]
        return np.array(ids, dtype=np.int64), np.array(numbers, dtype=np.float32)

    def encode_rows(self, side: Side, columns: Mapping[str, Column], rows: int) -> tuple[Int32, Float32]:
        """Many rows: ids int32[rows, id_columns], numbers float32[rows, number_columns].

        `columns` must hold every field of the side; KeyError names the one that is missing.
        """
        ids = np.zeros((rows, side.id_columns), dtype=np.int32)
        for field, place in side.slices():
            column = columns[field.name]
            if isinstance(column, Ragged):
                ids[:, place] = self._several_rows(field, column)
            elif field.kind is Kind.BUCKETED:
                ids[:, place.start] = _bucket(field, _numbers(column))
            elif field.kind is Kind.CATEGORICAL:
                ids[:, place.start] = self.vocabulary_of(field).ids_of(column)
            else:
                raise ContractError(f"field {field.name!r} is multi-valued, its column must be ragged")
        numbers = np.zeros((rows, side.number_columns), dtype=np.float32)
        for i, field in enumerate(side.number_fields):
            column = columns[field.name]
            if isinstance(column, Ragged):
                raise ContractError(f"field {field.name!r} is a number, its column must not be ragged")
            numbers[:, i] = _scale(field, _numbers(column))
        return ids, numbers

    def vocabulary_of(self, field: FieldSpec) -> Vocabulary:
        """The vocabulary of a categorical or multi-valued field."""
        return self.vocabularies[field.vocabulary or ""]

    def _several(self, field: FieldSpec, value: object) -> list[int]:
        vocabulary = self.vocabulary_of(field)
        listed: Sequence[object] = value if isinstance(value, list | tuple) else () if value is None else (value,)
        ids = [vocabulary.id_of(each) for each in listed[: field.width]] or [UNKNOWN]
        return ids + [0] * (field.width - len(ids))

    def _several_rows(self, field: FieldSpec, column: Ragged) -> Int32:
        if field.kind is not Kind.MULTIVALUED:
            raise ContractError(f"field {field.name!r} is {field.kind}, its column must not be ragged")
        flat = self.vocabulary_of(field).ids_of(column.values)
        lengths = np.diff(column.offsets)
        place = np.arange(field.width)
        inside = place < lengths[:, None]
        source = np.where(inside, column.offsets[:-1, None] + place, 0)
        ids = np.where(inside, flat[source] if flat.size else UNKNOWN, 0).astype(np.int32)
        ids[lengths == 0, 0] = UNKNOWN
        return ids


def _number(value: object) -> float:
    """A raw value as a float; NaN where it is none."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return math.nan
    return math.nan


def _numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if column.dtype.kind in "iufb":
        return column.astype(np.float64)
    return np.fromiter((_number(value) for value in column.tolist()), dtype=np.float64, count=column.size)


def _bucket(field: FieldSpec, x: npt.NDArray[np.float64]) -> Int32:
    interval = np.searchsorted(np.asarray(field.edges), x, side="right") + FIRST_KNOWN
    return np.where(np.isnan(x), UNKNOWN, interval).astype(np.int32)


def _scale(field: FieldSpec, x: npt.NDArray[np.float64]) -> Float32:
    """Standardised; a missing or non-finite number becomes 0, the mean."""
    if field.log:
        x = np.log1p(np.maximum(x, 0.0))
    # A number may be finite and still overflow, here or in float32, which the networks read.
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = ((x - field.mean) / field.std).astype(np.float32)
    return np.where(np.isfinite(scaled), scaled, np.float32(0.0))
