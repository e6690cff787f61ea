"""What `adrank tune` may change: one YAML, checked against the configuration before anything is trained.

tune:
  training.learning_rate: {kind: float, low: 0.0003, high: 0.003, log: true}
  training.batch_size: {kind: int, low: 128, high: 1024, step: 128}
  model.hidden: {kind: choice, values: [[256, 128], [128, 64]]}
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from bundle.schema import Frozen
from models.config import ConfigError, TrainConfig
from models.data.spec import DataError, complaints, describe, read_yaml
from models.networks.config import EmbeddedConfig

SPACES = Path(__file__).parent / "configs/tune"


DIGITS = 3
"""Significant digits of a real number that is tried: more would be noise, and what is found is read by people."""


class FloatRange(Frozen):
    """A real number of at most DIGITS significant digits."""

    kind: Literal["float"]
    low: float
    high: float
    log: bool = False
    """Uniform in the logarithm."""

    @model_validator(mode="after")
    def _not_empty(self) -> "FloatRange":
        _require_range(self.low, self.high, self.log)
        return self

    def holds(self, value: JsonValue) -> bool:
        """Whether a value lies in it."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and self.rounded(value) == value

    def rounded(self, value: float) -> float:
        """The number nearest to one that was drawn."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def probes(self) -> list[JsonValue]:
        """Values that must be allowed if all are. The one in between is hardly ever whole, so a key of whole numbers
        refuses it."""
        return [self.low, self.low + (self.high - self.low) * 0.381966, self.high]


class IntRange(Frozen):
    """A whole number."""

    kind: Literal["int"]
    low: int
    high: int
    step: int = Field(default=1, gt=0)
    log: bool = False

    @model_validator(mode="after")
    def _not_empty(self) -> "IntRange":
        _require_range(self.low, self.high, self.log)
        if self.log and self.step > 1:
            raise ValueError(f"step is {self.step}, with log it has to be 1")
        if (self.high - self.low) % self.step:
            raise ValueError(f"high {self.high} is no multiple of step {self.step} above low {self.low}")
        return self

    def holds(self, value: JsonValue) -> bool:
        """Whether a value is one of it."""
        return type(value) is int and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def probes(self) -> list[JsonValue]:
        """Values that must be allowed if all are."""
        return [self.low, self.high]


class Choice(Frozen):
    """One of several values of any type."""

    kind: Literal["choice"]
    values: tuple[JsonValue, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _different(self) -> "Choice":
        for i, value in enumerate(self.values):
            if value in self.values[:i]:
                raise ValueError(f"the value {value!r} is there twice")
        return self

    def holds(self, value: JsonValue) -> bool:
        """Whether it is one of them."""
        return value in self.values

    def probes(self) -> list[JsonValue]:
        """All of them."""
        return list(self.values)


Range = Annotated[FloatRange | IntRange | Choice, Field(discriminator="kind")]


class Space(Frozen):
    """The whole file: dotted keys of the configuration, and where each is searched."""

    tune: dict[str, Range] = Field(min_length=1)


def find_space(config: TrainConfig, given: Path | None) -> Path:
    """The space to use: the one given, else that of this configuration's name, else that of its kind of model, else
    that of all networks with embeddings.

    ConfigError when there is none.
    """
    names = [config.name, config.model.kind]
    if isinstance(config.model, EmbeddedConfig):
        names.append("embedded")
    places = [SPACES / f"{name}.yaml" for name in names] if given is None else [given]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"no search space: there is no {' and no '.join(map(str, places))}; --space FILE names one")


def read_space(path: Path, config: TrainConfig) -> Space:
    """The space in a YAML file. ConfigError names the file, the key and the value, when a key is not one of the
    configuration's, a range is empty, or holds what the configuration does not allow."""
    try:
        space = Space.model_validate(read_yaml(path))
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ValidationError as error:
        raise ConfigError(describe(path, error)) from error
    whole = config.model_dump(mode="json")
    for key, where in space.tune.items():
        _require_known(path, key, whole)
        for value in where.probes():
            try:
                with_values(config, {key: value})
            except ValidationError as error:
                raise ConfigError(f"{path}: tune.{key}: {value!r} is not allowed: {complaints(error)}") from error
    return space


def with_values(config: TrainConfig, values: Mapping[str, JsonValue]) -> TrainConfig:
    """The configuration with dotted keys set. ValidationError when a value is not allowed."""
    whole = config.model_dump(mode="json")
    for key, value in values.items():
        put(whole, key, value)
    return TrainConfig.model_validate(whole)


def value_of(config: TrainConfig, key: str) -> JsonValue:
    """What stands under a dotted key."""
    found: Any = config.model_dump(mode="json")
    for part in key.split("."):
        found = found[part]
    value: JsonValue = found
    return value


def put(tree: dict[str, Any], key: str, value: JsonValue) -> None:
    """Set a dotted key of nested mappings; those that are missing on the way are made."""
    *folders, leaf = key.split(".")
    for part in folders:
        tree = tree.setdefault(part, {})
    tree[leaf] = copy.deepcopy(value)


def _require_known(path: Path, key: str, whole: dict[str, Any]) -> None:
    if key == "model.kind" or key.partition(".")[0] not in ("model", "training"):
        raise ConfigError(f"{path}: tune.{key}: only keys of `model` and `training` can be searched, not {key!r}")
    found: Any = whole
    for part in key.split("."):
        if not isinstance(found, dict):
            raise ConfigError(f"{path}: tune.{key}: the configuration has nothing there to put {part!r} in")
        if part not in found:
            raise ConfigError(f"{path}: tune.{key}: there is no key {part!r}, known: {', '.join(found)}")
        found = found[part]


def _require_range(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ValueError(f"the range from {low:g} to {high:g} is empty")
    if log and low <= 0:
        raise ValueError(f"low is {low:g}, with log it has to be above 0")
