"""A dataset described by one YAML: which columns are what. Unknown keys are refused, naming file and key."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from bundle.schema import Frozen, Kind

CLICK = "click"
"""What the label of a dataset is called among its labels, whatever its column."""


class DataError(Exception):
    """Data or its description cannot be used. The message names the file, the field and the value."""


class VectorFiles(Frozen):
    """Fixed vectors of a column's values, in two .npy files of the data folder."""

    ids: str
    """Integers or text [n]: values of the column, each once."""
    vectors: str
    """float16 or float32 [n, width]: the vector of each."""


class FeatureColumn(Frozen):
    """One column that becomes a feature."""

    column: str
    kind: Kind = Kind.CATEGORICAL
    min_count: int = Field(default=1, ge=1)
    """Values seen in fewer training impressions (for user and context) or training impressions of its ads (for ads)
    become unknown. Behaviours count too for ad features."""
    buckets: int = Field(default=16, ge=2, le=1000)
    """Bucketed: at most this many intervals of equal mass over the training split."""
    separator: str | None = None
    """Multi-valued, in a text column: what stands between the values. None: the column holds lists."""
    max_values: int = Field(default=1, ge=1, le=1000)
    """Multi-valued: only the first so many are kept."""
    log: bool = False
    """Number: take log1p first."""
    filter: bool = False
    """Requests may ask for ads with, or without, values of this field. Categorical ad features only."""
    vectors: VectorFiles | None = Field(default=None, exclude_if=lambda given: given is None)
    """Every value of the column has a fixed vector (of an image, say), which networks read in place of an embedding.
    Categorical ad features only; they stand after the others, in histories too."""


class HistoryColumn(Frozen):
    """One behaviour sequence."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$")
    """Part of the names of columns and tensors, so it must not end in _numbers, which ends the names of others."""
    source: Literal["column", "log", "behaviours", "logged"]
    """column: a list column of the user table (ids of ads, oldest first), the same for all of a user's impressions.
    log: the user's own earlier impressions in the log, strictly before each impression, of the kinds in `events`.
    behaviours: a separate behaviour log (user, time, fields), strictly before each impression.
    logged: a list column of the log (ids of ads, oldest first): the history that the request was served with."""
    column: str | None = None
    """source column or logged: which one. With source log it may be given too: its ads come first, the log's are
    appended."""
    fields: tuple[str, ...] = Field(min_length=1)
    """Ad features that describe one behaviour."""
    of_ads: bool = True
    """Behaviours are ads of the catalogue; False: they carry `fields` themselves."""
    max_length: int = Field(default=50, gt=0, le=1000)
    events: tuple[Literal["click", "impression"], ...] = ("click",)
    """Events that append online; with source log the rows that do: click (label 1), impression (label 0)."""

    @model_validator(mode="after")
    def _consistent(self) -> "HistoryColumn":
        if self.source in ("column", "logged") and self.column is None:
            raise ValueError(f"history {self.name!r} has source {self.source!r} and names no column")
        if self.name.endswith("_numbers"):
            raise ValueError(f"history {self.name!r}: a name must not end in '_numbers'")
        if repeated := sorted({name for name in self.fields if self.fields.count(name) > 1}):
            raise ValueError(f"history {self.name!r} names fields twice: {repeated}")
        return self


class LabelColumn(Frozen):
    """One further label of an impression, beside the click."""

    column: str
    """Column of the log: 1 or 0."""
    truth: str | None = None
    """Simulated data: column with its true probability."""


class TargetingRule(Frozen):
    """Ads say where they may be shown: only where a request's context has one of the ad's values."""

    context: str
    """Field of the request's context; a feature of that name must be categorical. It need not be a feature."""
    ad: str
    """Ad column with the values, one or several; none: the ad may be shown everywhere."""
    separator: str | None = None
    """Several values in a text column: what stands between them. None: a column of lists, or of single values."""


class SplitSpec(Frozen):
    """How rows are split when the source does not come split. Times are the log's own; a later row never trains."""

    valid_from: int | float | None = None
    """First time of the validation split."""
    test_from: int | float | None = None
    """First time of the test split."""
    until: int | float | None = None
    """Rows at this time or later are left out, whichever way the source is split."""

    @property
    def by_time(self) -> bool:
        """Whether rows are dealt by their times, and not as the source comes split."""
        return self.valid_from is not None or self.test_from is not None


class DatasetSpec(Frozen):
    """One dataset: where it comes from and what its columns are."""

    name: str
    source: Literal["kuairand", "taobao", "movielens", "table"]
    files: dict[str, str] = Field(default_factory=dict)
    """table: log, and optionally users, ads and behaviours: Parquet or CSV files in the data folder; globs allowed."""
    label: str
    user: str
    ad: str
    time: str
    request: tuple[str, ...] = ()
    """Columns that together tell requests apart. Empty: every impression is a request of its own."""
    position: str | None = None
    """Column with the position at which the ad was shown, if known."""
    bid: str | None = None
    """Ad column with the bid, if known."""
    truth: str | None = None
    """Simulated data: column with the true click probability."""
    labels: dict[Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")], LabelColumn] = Field(default_factory=dict)
    """Further labels by name, such as like or long_view: what else may be learnt, and learnt from."""
    user_features: tuple[FeatureColumn, ...] = ()
    context_features: tuple[FeatureColumn, ...] = ()
    ad_features: tuple[FeatureColumn, ...] = Field(min_length=1)
    histories: tuple[HistoryColumn, ...] = ()
    targeting: tuple[TargetingRule, ...] = ()
    split: SplitSpec = SplitSpec()

    @model_validator(mode="after")
    def _consistent(self) -> "DatasetSpec":
        known = {feature.column for feature in self.ad_features}
        for history in self.histories:
            if strange := [name for name in history.fields if name not in known]:
                raise ValueError(f"history {history.name!r} names ad features that are not declared: {strange}")
        return self


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice; YAML itself would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: key {key.value!r} is there twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file in UTF-8 that holds one mapping, no key twice. DataError otherwise, in one line."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds {type(content).__name__}, not a mapping")
    return content


def read_spec(path: Path) -> DatasetSpec:
    """The dataset description in a YAML file. DataError names the file, the key and the value."""
    try:
        return DatasetSpec.model_validate(read_yaml(path))
    except ValidationError as error:
        raise DataError(describe(path, error)) from error


def describe(path: Path, error: ValidationError) -> str:
    """A validation error as one line: file, key, what is wrong, and the value."""
    return f"{path}: {complaints(error)}"


def complaints(error: ValidationError) -> str:
    """The same without a file. Of a key and one inside it that are both wrong only the inner one is named, and a rule
    over several keys, which says itself what is wrong with them, is not followed by all of them."""
    errors = error.errors()
    inner = [e for e in errors if not any(e["loc"] == f["loc"][: len(e["loc"])] and e is not f for f in errors)]
    wrong = []
    for e in (inner or errors)[:5]:
        got = "" if e["type"] == "value_error" and isinstance(e["input"], dict) else f" (got {e['input']!r:.80})"
        place = f"{'.'.join(map(str, e['loc']))}: " if e["loc"] else ""
        wrong.append(f"{place}{e['msg'].removeprefix('Value error, ')}{got}")
    return "; ".join(wrong)
