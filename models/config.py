"""One YAML -> one frozen configuration. Unknown keys are refused; every field says what it is."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, ValidationError

from bundle.schema import Frozen
from models.data.spec import DataError, DatasetSpec, describe, read_spec, read_yaml

Activation = Literal["dice", "prelu", "sigmoid", "relu"]


class ConfigError(Exception):
    """A configuration that cannot be used. The message names the file, the key and the value."""


class QscoreConfig(Frozen):
    """Smoothed click-through rate of each ad: (clicks + a) / (impressions + a + b)."""

    kind: Literal["qscore"]
    strength: float | None = Field(default=None, gt=0)
    """a + b, the impressions' worth of the prior. None: the maximum of the marginal likelihood (beta-binomial)."""


class DqmConfig(Frozen):
    """User, ad and scene domains, each to one vector; the score is their inner product."""

    kind: Literal["dqm"]
    embedding: int = Field(default=16, gt=0)
    """Dimension of every id's embedding."""
    embedding_std: float = Field(default=0.1, gt=0)
    """Spread of initial embeddings. What matches history and ad learns from products of embeddings: from 0.01 it takes
    epochs to start (simulated data, AUC after one: 0.702 from 0.01, 0.757 from 0.1, 0.768 from 0.3)."""
    dimension: int = Field(default=32, gt=0)
    """Dimension of the three vectors."""
    hidden: tuple[PositiveInt, ...] = (128,)
    """Hidden layers of the user's and the ad's tower."""
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0, lt=1)


class DinConfig(Frozen):
    """Deep Interest Network: candidates attend to the user's behaviours."""

    kind: Literal["din"]
    embedding: int = Field(default=16, gt=0)
    """Dimension of every id's embedding."""
    embedding_std: float = Field(default=0.1, gt=0)
    """Spread of initial embeddings. What matches history and ad learns from products of embeddings: from 0.01 it takes
    epochs to start (simulated data, AUC after one: 0.702 from 0.01, 0.757 from 0.1, 0.768 from 0.3)."""
    attention: Literal["sum", "softmax"] = "sum"
    """sum: the paper's weights, not normalised. softmax: scaled by 1/sqrt(d), as in the authors' code."""
    attention_hidden: tuple[PositiveInt, PositiveInt] = (80, 40)
    """Layers of the activation unit."""
    attention_activation: Activation = "dice"
    hidden: tuple[PositiveInt, ...] = Field(default=(200, 80), min_length=1)
    """Layers of the network on top."""
    activation: Activation = "dice"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    position_bias: bool = False
    """Add a learnt bias for the position an ad was shown at; online every candidate gets position 0's."""


ModelConfig = Annotated[QscoreConfig | DqmConfig | DinConfig, Field(discriminator="kind")]


class Pretraining(Frozen):
    """Start an ad field's embeddings from which of its values stand together in a history (models/pretraining.py)."""

    history: str
    field: str
    std: float = Field(default=0.1, gt=0)
    """Spread of the start values."""


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
