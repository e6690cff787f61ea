"""Configuration -> network."""

from torch import nn

from bundle.schema import FeatureSchema
from models.networks.config import DinConfig, DqmConfig, GwenConfig, LrConfig, MlrConfig
from models.networks.din import Din
from models.networks.dqm import Dqm
from models.networks.gwen import Gwen
from models.networks.lr import Lr
from models.networks.mlr import Mlr
from models.networks.network import Network

NetworkConfig = DqmConfig | GwenConfig | DinConfig | LrConfig | MlrConfig


def build(config: NetworkConfig, schema: FeatureSchema) -> Network:
    """A freshly initialised network. Its weights depend on torch's seed alone."""
    match config:
        case DqmConfig():
            return Dqm(config, schema)
        case GwenConfig():
            return Gwen(config, schema)
        case DinConfig():
            return Din(config, schema)
        case LrConfig():
            return Lr(config, schema)
        case MlrConfig():
            return Mlr(config, schema)


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
