"""A recipe: steps that make a trained network smaller, in order. Unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, ValidationError, model_validator

from bundle.precision import Stored
from bundle.schema import Frozen
from models.config import ConfigError
from models.data.spec import DataError, describe, read_yaml

Rank = Annotated[int, Field(gt=0, strict=True)]
Share = Annotated[float, Field(gt=0, lt=1)]
Times = Annotated[str, Field(pattern=r"^[1-9][0-9]*(\.[0-9]+)?x$")]


class FineTune(Frozen):
    """Training goes on from the weights as they are, with the original's settings but for these."""

    step: Literal["fine_tune"]
    epochs: int = Field(default=1, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    evaluations: int = Field(default=2, gt=0)
    """On the validation split, an epoch. The best of them is kept, or the start where none is better."""
    tables: bool = True
    """Embeddings learn too. Where they were trained for one epoch only a second one may do harm."""
    teacher: float = Field(default=0.0, ge=0)
    """w, how much the squared difference from the original's logits, or from the mean of those of the teachers that are
    given with the recipe, weighs beside the clicks (models/teaching.py)."""
    dealt: bool = False
    """The teachers are asked about candidates at others' requests. What they say of pairs they were trained on holds
    something of the clicks that were seen there."""

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> Self:
        if self.dealt and not self.teacher:
            raise ValueError("dealt is about what a teacher is asked, but teacher is 0")
        return self


class Factorise(Frozen):
    """Linear layers as two thin ones (models/compression/factorise.py)."""

    step: Literal["factorise"]
    layers: dict[str, Rank | Share | Times] = Field(min_length=1)
    """Path of a layer, or a pattern such as `attention.*.first` -> its rank, or the share of variance to be kept, or
    how many times fewer multiply-adds, as `4x`. A pattern passes over layers of one output."""
    method: Literal["afm", "svd", "svd-weighted"] = "afm"
    """afm: of the outputs, over calibration rows. svd: of the weights. svd-weighted: of the weights, times the size of
    their inputs."""
    between: Literal["prelu", "dice"] | None = None
    """Activation between the factors, for fine-tuning; it starts as the identity."""
    impressions: int = Field(default=20_000, gt=0)
    """Of the training split, to calibrate on."""


class Prune(Frozen):
    """Fewer units in hidden layers (models/compression/prune.py)."""

    step: Literal["prune"]
    hidden: tuple[PositiveInt, ...] | None = None
    """Units to keep in each hidden layer of the network on top. None: all."""
    attention_hidden: tuple[PositiveInt, PositiveInt] | None = None
    """Units to keep in both layers of DIN's activation units. None: all."""
    impressions: int = Field(default=20_000, gt=0)
    """Of the training split, to calibrate on."""

    @model_validator(mode="after")
    def _something(self) -> "Prune":
        if self.hidden is None and self.attention_hidden is None:
            raise ValueError("hidden or attention_hidden is needed")
        return self


class Values(Frozen):
    """Embedding tables in fewer bytes a number."""

    step: Literal["values"]
    tables: Stored | dict[str, Stored]
    """What all tables are stored in, or some, by name: the vocabulary, or buckets:FIELD of a field without one."""


class RowStep(Frozen):
    """Ids of some tables come to share rows."""

    step: str
    tables: tuple[str, ...] = Field(min_length=1)
    """By vocabulary; that of a bucketed field F is `buckets:F`."""
    rows: int | None = Field(default=None, gt=0)
    """Rows of known ids that are left: kept, hashed to, or of the remainders."""
    ratio: float | None = Field(default=None, gt=1)
    """Or: known ids ÷ rows of each table, all its rows together."""

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if len(given := [name for name in self._sizes() if getattr(self, name) is not None]) != 1:
            raise ValueError(
                f"exactly one of {', '.join(self._sizes())} is needed, given are {', '.join(given) or None}"
            )
        return self

    def _sizes(self) -> tuple[str, ...]:
        return ("rows", "ratio")


class Cut(RowStep):
    """Ids that are looked up rarely share the unknown's row."""

    step: Literal["cut"]
    min_count: int | None = Field(default=None, gt=1)
    """Or: ids looked up less often in a pass over the training split leave."""

    def _sizes(self) -> tuple[str, ...]:
        return ("rows", "ratio", "min_count")


class Hash(RowStep):
    """Every id has a row by one hash."""

    step: Literal["hash"]


class MultiHash(RowStep):
    """Every id has the sum of some rows, each by a hash of its own."""

    step: Literal["multi_hash"]
    hashes: int = Field(default=2, ge=2, le=6)


class QuotientRemainder(RowStep):
    """Every id has a row by its quotient and one by its remainder."""

    step: Literal["quotient_remainder"]
    combine: Literal["sum", "product"] = "product"


class NarrowTables(Frozen):
    """Tables of fewer columns, by a singular value decomposition; an expansion brings them back."""

    step: Literal["narrow_tables"]
    tables: tuple[str, ...] = ()
    """None given: all that become smaller by it."""
    dimension: int | None = Field(default=None, gt=0)
    """The same for each."""
    kept: float | None = Field(default=None, gt=0, lt=1)
    """Or: as many as keep this share of the squares of the table."""
    popularity: float | None = Field(default=None, gt=0)
    """Or: in proportion to (1 / ids of the table) ** popularity, the smallest table keeps all (arXiv 1909.11810)."""
    weighted: bool = True
    """Rows count as often as they are looked up in a pass over the training split. False: each once."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = {"dimension": self.dimension, "kept": self.kept, "popularity": self.popularity}
        if len(given := [name for name, value in rules.items() if value is not None]) != 1:
            raise ValueError(f"exactly one of {', '.join(rules)} is needed, given are {', '.join(given) or None}")
        return self


class SelectFields(Frozen):
    """Gates learn what each field is worth; the others leave."""

    step: Literal["select_fields"]
    keep: int | None = Field(default=None, gt=0)
    """So many fields stay."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Or: those whose gate is open at least so often."""
    strength: float = Field(default=1e-4, gt=0)
    """Price of a field, in log loss."""
    steps: int = Field(default=1000, gt=0)
    """Of the gates' training, on the validation split."""
    learning_rate: float = Field(default=0.05, gt=0)
    temperature: float = Field(default=0.2, gt=0)
    """Of the relaxed Bernoulli variables."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.keep is None) == (self.threshold is None):
            raise ValueError(f"exactly one of keep, threshold is needed, they are {self.keep} and {self.threshold}")
        return self


Step = Annotated[
    FineTune | Factorise | Prune | Values | Cut | Hash | MultiHash | QuotientRemainder | NarrowTables | SelectFields,
    Field(discriminator="step"),
]


class Recipe(Frozen):
    """The whole file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Part of the name of what it makes."""
    steps: tuple[Step, ...] = Field(min_length=1)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. ConfigError names the file, the key and the value."""
    try:
        return Recipe.model_validate(read_yaml(path))
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ValidationError as error:
        raise ConfigError(describe(path, error)) from error
