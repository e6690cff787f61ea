"""A network on its way through a recipe, and what the steps may use."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from models.config import ConfigError, TrainConfig
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.networks.config import EmbeddedConfig, NetworkConfig, QscoreConfig
from models.networks.network import Network
from models.networks.registry import build


class CompressionError(ConfigError):
    """A step that cannot be taken. The message names the step, what it was asked for, and the bound."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A trained network in evaluation mode, and the configuration that builds it. Steps make new ones and change
    neither."""

    config: TrainConfig
    network: Network

    @property
    def model(self) -> NetworkConfig:
        """Its network's configuration."""
        assert not isinstance(self.config.model, QscoreConfig), "refused by the pipeline"
        return self.config.model

    @property
    def embedded(self) -> EmbeddedConfig:
        """The same of a network with embeddings. CompressionError for another: a linear model has weights only."""
        if not isinstance(self.model, EmbeddedConfig):
            raise CompressionError(f"a {self.model.kind} has no embeddings and no layers to make smaller")
        return self.model

    def changed(self, **keys: object) -> NetworkConfig:
        """Its network's configuration with some keys of EmbeddedConfig changed. CompressionError as of `embedded`."""
        found: NetworkConfig = self.embedded.model_copy(update=keys)  # type: ignore[assignment]  # of the same class
        return found

    def rebuilt(self, model: NetworkConfig, state: dict[str, torch.Tensor]) -> "Subject":
        """Another network with these weights."""
        network = build(model, self.network.schema)
        network.load_state_dict(state)
        return Subject(self.config.model_copy(update={"model": model}), network.eval())


@dataclass(frozen=True, slots=True)
class Material:
    """What a step may use beside its subject."""

    data: PreparedData
    folder: Path
    """Of this step alone: what it leaves there is found again when the recipe is resumed."""
    seed: int
    original: Subject
    """What the recipe started from."""
    progress: bool
    teachers: tuple[Network, ...] = ()
    """Whom a step that is taught learns from, in evaluation mode. None: from the original."""

    def calibration(self, impressions: int) -> Iterator[Batch]:
        """About so many impressions of the training split, the same ones for the same seed."""
        size = 1024
        return islice(batches(self.data, "train", size, self.seed), -(-impressions // size))
