"""Which features a model reads, and how each is turned into numbers.

A field belongs to one *side*: `user` and `context` are common to all candidates of a request, `ad` is the candidate's.
Encoded, a side is one integer row (categorical, bucketed and multi-valued fields, in the order of the schema) and one
float row (plain numbers). Histories are sequences of past ads or events whose fields share ad-side vocabularies.

Ids: 0 is padding, 1 is unknown or missing, known values start at 2.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

PADDING = 0
UNKNOWN = 1
FIRST_KNOWN = 2


class Frozen(BaseModel):
    """A configuration object that cannot change and refuses keys it does not know, and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Kind(StrEnum):
    """How a raw value becomes something a network reads."""

    CATEGORICAL = "categorical"
    """One value -> one id of a vocabulary."""
    MULTIVALUED = "multivalued"
    """Several values -> at most `width` ids, padded with 0."""
    BUCKETED = "bucketed"
    """A number -> the id of the interval it falls in."""
    NUMBER = "number"
    """A number -> (x - mean) / std, of log1p(max(x, 0)) where `log` is set."""


class FieldSpec(Frozen):
    """One feature as the networks see it. Fitted values (edges, mean, std) come from the training split only."""

    name: str
    kind: Kind
    vocabulary: str | None = None
    """Name of the vocabulary; fields may share one. Categorical and multi-valued fields only."""
    size: int = 0
    """Ids run from 0 to size - 1. 0 for plain numbers."""
    width: int = Field(default=1, ge=1)
    """Columns taken in the encoded row: the largest number of values kept of a multi-valued field."""
    edges: tuple[float, ...] = ()
    """Bucketed: inner interval borders, ascending; x belongs to interval i where edges[i-1] <= x < edges[i]."""
    mean: float = 0.0
    std: float = 1.0
    log: bool = False
    vector: int = Field(default=0, ge=0, exclude_if=lambda width: width == 0)
    """Width of the fixed vector that each value has (of an image, say). 0: none. Categorical ad fields only. Such a
    field's ids say where a vector stands; they get no embeddings, and networks that read no vectors pass them over."""

    @model_validator(mode="after")
    def _consistent(self) -> "FieldSpec":
        if self.vector and self.kind is not Kind.CATEGORICAL:
            raise ValueError(f"field {self.name!r} is {self.kind} and has vectors, only categorical fields may")
        if self.kind in (Kind.CATEGORICAL, Kind.MULTIVALUED) and self.vocabulary is None:
            raise ValueError(f"field {self.name!r} is {self.kind} and names no vocabulary")
        if self.kind is not Kind.NUMBER and self.size < FIRST_KNOWN:
            raise ValueError(f"field {self.name!r} has size {self.size}, at least {FIRST_KNOWN} is needed")
        if self.kind is not Kind.MULTIVALUED and self.width != 1:
            raise ValueError(f"field {self.name!r} is {self.kind} and has width {self.width}, only 1 makes sense")
        if self.kind is Kind.NUMBER and not self.std > 0:
            raise ValueError(f"field {self.name!r} has std {self.std}, it must be above 0")
        if self.kind is Kind.BUCKETED and self.size != len(self.edges) + 1 + FIRST_KNOWN:
            raise ValueError(
                f"field {self.name!r} has size {self.size} and {len(self.edges)} edges, "
                f"the size must be {len(self.edges) + 1 + FIRST_KNOWN}"
            )
        if list(self.edges) != sorted(self.edges):
            raise ValueError(f"field {self.name!r} has edges that do not ascend: {self.edges}")
        return self


class Side(Frozen):
    """All fields of the user, the context or the ad, in the order in which they are encoded."""

    fields: tuple[FieldSpec, ...] = ()

    @cached_property
    def id_fields(self) -> tuple[FieldSpec, ...]:
        """Fields that become ids, in column order."""
        return tuple(field for field in self.fields if field.kind is not Kind.NUMBER)

    @cached_property
    def embedded_fields(self) -> tuple[FieldSpec, ...]:
        """Of these, the ones whose ids get embeddings: all but those with vectors, which stand last."""
        return tuple(field for field in self.id_fields if not field.vector)

    @cached_property
    def number_fields(self) -> tuple[FieldSpec, ...]:
        """Fields that stay numbers, in column order."""
        return tuple(field for field in self.fields if field.kind is Kind.NUMBER)

    @cached_property
    def id_columns(self) -> int:
        """Width of the encoded integer row."""
        return sum(field.width for field in self.id_fields)

    @cached_property
    def number_columns(self) -> int:
        """Width of the encoded float row."""
        return len(self.number_fields)

    def slices(self) -> Iterator[tuple[FieldSpec, slice]]:
        """Each id field with the columns it takes in the encoded integer row."""
        start = 0
        for field in self.id_fields:
            yield field, slice(start, start + field.width)
            start += field.width

    def columns_of(self, name: str) -> slice:
        """The columns that the id field `name` takes. KeyError when there is no such field."""
        for field, columns in self.slices():
            if field.name == name:
                return columns
        raise KeyError(name)


class HistorySpec(Frozen):
    """One behaviour sequence of the user, oldest first.

    `of_ads` says what an event carries: True, the id of an ad, whose fields are then looked up in the catalogue; False,
    the raw values of `fields` themselves (a log of categories and brands, for example).
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    fields: tuple[str, ...] = Field(min_length=1)
    """Ad-side id fields that describe one behaviour; they share the ad's vocabularies."""
    of_ads: bool = True
    max_length: int = Field(gt=0, le=1000)
    """Only the last `max_length` behaviours are read."""
    events: tuple[str, ...] = ("click",)
    """Kinds of event that append to this history when they arrive online."""


class FeatureSchema(Frozen):
    """Everything a request is encoded by."""

    user_key: str
    ad_key: str
    key_type: Literal["integer", "string"] = "integer"
    """Type of ad ids, in the catalogue and over HTTP. User ids are always handled as strings."""
    user: Side = Side()
    context: Side = Side()
    ad: Side
    histories: tuple[HistorySpec, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "FeatureSchema":
        for name, side in (("user", self.user), ("context", self.context), ("ad", self.ad)):
            names = [field.name for field in side.fields]
            if twice := {each for each in names if names.count(each) > 1}:
                raise ValueError(f"{name} fields are named twice: {sorted(twice)}")
        ad_fields = {field.name: field for field in self.ad.id_fields}
        with_vectors = {field.name for side in (self.user, self.context) for field in side.id_fields if field.vector}
        if with_vectors:
            raise ValueError(f"fields of user or context have vectors, only ad fields may: {sorted(with_vectors)}")
        self._vectors_stand_last("the ad", self.ad.id_fields)
        names = [history.name for history in self.histories]
        if twice := {each for each in names if names.count(each) > 1}:
            raise ValueError(f"histories are named twice: {sorted(twice)}")
        for history in self.histories:
            if strange := [name for name in history.fields if name not in ad_fields]:
                raise ValueError(f"history {history.name!r} has fields that the ad side lacks: {strange}")
            if len(set(history.fields)) < len(history.fields):
                raise ValueError(f"history {history.name!r} has a field twice: {list(history.fields)}")
            self._vectors_stand_last(f"history {history.name!r}", [ad_fields[name] for name in history.fields])
            if ad_fields[history.fields[0]].vector:
                raise ValueError(f"history {history.name!r} has no field but those with vectors")
            if not history.of_ads and (
                strange := [name for name in history.fields if ad_fields[name].kind is not Kind.CATEGORICAL]
            ):
                raise ValueError(f"history {history.name!r} carries raw values of fields not categorical: {strange}")
        return self

    def _vectors_stand_last(self, where: str, fields: Sequence[FieldSpec]) -> None:
        """Networks then find the ids that they embed in the first columns."""
        for field, following in pairwise(fields):
            if field.vector and not following.vector:
                raise ValueError(f"{where}: field {field.name!r} has vectors and stands before {following.name!r}")

    def embedded_of(self, history: HistorySpec) -> list[FieldSpec]:
        """The fields of a behaviour whose ids get embeddings, in the order of `history.fields`."""
        fields = {field.name: field for field in self.ad.embedded_fields}
        return [fields[name] for name in history.fields if name in fields]

    def history_columns(self, history: HistorySpec) -> list[int]:
        """Columns of the encoded ad row that make up one behaviour of `history`."""
        return [c for name in history.fields for c in range(*self.ad.columns_of(name).indices(self.ad.id_columns))]
