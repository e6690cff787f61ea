"""A recipe: steps that make a trained network smaller, in order. Unknown keys are refused."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bundle.schema import Frozen
from models.config import ConfigError
from models.data.spec import DataError, describe, read_yaml


class FineTune(Frozen):
    """Training goes on from the weights as they are, with the original's settings but for these."""

    step: Literal["fine_tune"]
    epochs: int = Field(default=1, gt=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    evaluations: int = Field(default=2, gt=0)
    """On the validation split, an epoch. The best of them is kept, or the start where none is better."""
    teacher: float = Field(default=0.0, ge=0)
    """w, how much the squared difference from the original's logits weighs beside the clicks (models/teaching.py)."""


Step = Annotated[FineTune, Field(discriminator="step")]


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
