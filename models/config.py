"""One YAML -> one frozen configuration. Unknown keys are refused; every field says what it is."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from bundle.schema import Frozen
from models.data.spec import CLICK, DataError, DatasetSpec, describe, read_spec, read_yaml
from models.networks.config import EmbeddedConfig, LinearConfig, ModelConfig, MtlConfig, QscoreConfig


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


class Only(Frozen):
    """Requests of one value of a categorical context field."""

    field: str
    value: int | str


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
    label: str = CLICK
    """What is learnt, chosen by and reported: the click, or a further label that the dataset names."""
    only: Only | None = None
    """Train, choose and report on the requests of one context value alone: a model of a single scene."""


class RocketConfig(Frozen):
    """Rocket Launching (models/rocket.py): `model` is the light net, trained beside a booster that it learns from."""

    booster: ModelConfig
    """The network that helps in training and is never served."""
    hint: float = Field(default=0.3, ge=0)
    """λ, the weight of the hint in the loss."""
    share: bool = True
    """Both read one arena of embeddings."""
    block: bool = True
    """The gradient of the hint stops before the booster."""
    block_arena: bool = False
    """It stops before the embeddings as well."""
    teacher: Literal["live", "averaged"] = "live"
    """live: the hint is the booster's logits in training, with dropout. averaged: those of its averaged weights."""
    centre: bool = False
    """The hint leaves out the mean difference of the batch: the level of the logits is learnt from clicks alone."""
    method: Literal["hint", "kd"] = "hint"
    """hint: squared difference of the logits. kd: knowledge distillation, probabilities softened by `temperature`."""
    temperature: float = Field(default=1.0, gt=0)
    """T of `kd`."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.teacher == "averaged" and not self.block:
            raise ValueError("block is false, but averaged weights have no gradient: teacher must be live")
        if self.centre and self.method != "hint":
            raise ValueError(f"centre is true, but method is {self.method}: probabilities have no level to leave out")
        if self.method != "kd" and self.temperature != 1.0:
            raise ValueError(f"temperature is of method kd, it is {self.temperature:g} and method is {self.method}")
        return self


class TrainConfig(Frozen):
    """Everything `adrank train` needs beside the data's place and the seed."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    dataset: str
    """Path of the dataset's YAML, relative to this file or, where it is not there, to the folder of the raw data."""
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    rocket: RocketConfig | None = None
    """A booster, from which `model` learns."""

    @field_validator("rocket")
    @classmethod
    def _two_networks_that_fit(cls, rocket: RocketConfig | None, info: ValidationInfo) -> RocketConfig | None:
        if rocket is None or "model" not in info.data:  # a wrong model is named by its own error
            return rocket
        dimensions, smaller = {}, []
        for place, each in (("model", info.data["model"]), ("rocket.booster", rocket.booster)):
            if isinstance(each, QscoreConfig):
                raise ValueError(f"{place} must be a network, a qscore is a table")
            if rocket.share and not isinstance(each, EmbeddedConfig):
                raise ValueError(f"{place}, a {each.kind}, has no embedding to share; share: false trains it without")
            if isinstance(each, EmbeddedConfig):
                dimensions[place] = each.embedding
                smaller.append((each.tables, sorted(each.dropped_fields)))
        if rocket.share and len(set(dimensions.values())) > 1:
            said = ", ".join(f"{place}.embedding is {dimension}" for place, dimension in dimensions.items())
            raise ValueError(f"embeddings are shared, so both networks need one dimension: {said}")
        if rocket.share and smaller[1:] != smaller[:-1]:
            raise ValueError("embeddings are shared, so both networks need the same tables and dropped_fields")
        return rocket

    @model_validator(mode="after")
    def _fits(self) -> "TrainConfig":
        model, training = self.model, self.training
        if isinstance(model, QscoreConfig) and training.pretraining is not None:
            raise ValueError("training.pretraining is set, but a qscore is counted and starts from nothing")
        if isinstance(model, MtlConfig) and model.related is not None and model.related.label == training.label:
            raise ValueError(f"model.related.label is {training.label!r}, which training.label is too")
        if self.rocket is not None and self.rocket.teacher == "averaged" and not training.averaging:
            raise ValueError("rocket.teacher is averaged, but training.averaging is 0")
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
