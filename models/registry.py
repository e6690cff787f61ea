"""Configuration -> network."""

from torch import nn

from bundle.schema import FeatureSchema
from models.config import DinConfig, DqmConfig
from models.din import Din
from models.dqm import Dqm

NetworkConfig = DinConfig | DqmConfig
Network = Din | Dqm


def build(config: NetworkConfig, schema: FeatureSchema) -> Network:
    """A freshly initialised network. Its weights depend on torch's seed alone."""
    return Dqm(config, schema) if isinstance(config, DqmConfig) else Din(config, schema)


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
