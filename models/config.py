"""One YAML -> one frozen configuration. Unknown keys are refused; every field says what it is."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from bundle.schema import Frozen
from models.data.spec import DataError, DatasetSpec, describe, read_spec, read_yaml
from models.networks.config import LinearConfig, ModelConfig


class ConfigError(Exception):
    """A configuration that cannot be used. The message names the file, the key and the value."""


class Pretraining(Frozen):
    """Where embeddings start (models/pretraining.py): one ad field's from which of its values stand together in a
    history, all of them from a factorisation machine trained before, or both, the machine itself starting from the
    history."""

    history: str | None = None
    field: str | None = None
    std: float = Field(default=0.1, gt=0)
    """Spread of the start values from a history."""
    fm_epochs: int = Field(default=0, ge=0)
    """Train a factorisation machine for at most so many epochs and start from it. 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> "Pretraining":
        if (self.history is None) != (self.field is None):
            raise ValueError(f"history and field go together, they are {self.history!r} and {self.field!r}")
        if self.history is None and not self.fm_epochs:
            raise ValueError("either history and field are needed, or fm_epochs above 0")
        return self


class TrainingConfig(Frozen):
    """The training loop."""

    epochs: int = Field(default=1, gt=0)
    """At most so many passes over the training split."""
    batch_size: int = Field(default=512, gt=0)
    """Impressions a step (requests are kept whole, so a step may have a few more)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the learning rate falls to 0 over all epochs."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay (AdamW) of the dense layers."""
    embedding_l2: float = Field(default=0.0, ge=0)
    """Mini-batch-aware L2 of embeddings: only rows in the batch are touched, each divided by its frequency."""
    pretraining: Pretraining | None = None
    unknown_rate: float = Field(default=0.0, ge=0, lt=1)
    """Share of known ids replaced by 1 in training, so that the row of the unknown is trained."""
    averaging: float = Field(default=0.0, ge=0, lt=1)
    """Decay of an exponential moving average of the weights, which is what is evaluated and saved. 0: none."""
    evaluations: int = Field(default=1, gt=0)
    """Evaluations on the validation split an epoch."""
    patience: int = Field(default=2, gt=0)
    """Stop after so many evaluations without a better one."""
    monitor: Literal["auc", "gauc", "logloss"] = "auc"
    """What better means."""
    clip: float = Field(default=10.0, gt=0)
    """Largest norm of the gradient."""


class TrainConfig(Frozen):
    """Everything `adrank train` needs beside the data's place and the seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    dataset: str
    """Path of the dataset's YAML, relative to this file or, where it is not there, to the folder of the raw data."""
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        model, training = self.model, self.training
        if isinstance(model, LinearConfig):
            if training.averaging and (model.l1 or model.l21):
                raise ValueError(
                    f"averaging is {training.averaging}, but an average of weights has no zeros of l1 or l21"
                )
            if training.unknown_rate and model.cascade:
                raise ValueError(
                    f"unknown_rate is {training.unknown_rate}, but a cascade leaves each row's own label out of its "
                    "ad's statistic, which needs the ad's id"
                )
        return self


def read_config(path: Path) -> TrainConfig:
    """The configuration in a YAML file. ConfigError names the file, the key and the value."""
    try:
        return TrainConfig.model_validate(read_yaml(path))
    except DataError as error:
        raise ConfigError(str(error)) from error
    except ValidationError as error:
        raise ConfigError(describe(path, error)) from error


def read_dataset(path: Path, config: TrainConfig, data: Path) -> DatasetSpec:
    """The dataset that the configuration at `path` names, `data` being the folder of the raw data."""
    places = [path.parent / config.dataset, data / config.dataset]
    for place in places:
        if place.is_file():
            return read_spec(place)
    raise ConfigError(f"{path}: dataset {config.dataset!r} is neither {places[0]} nor {places[1]}")
