"""Configuration -> network."""

from collections.abc import Callable
from typing import Any

from torch import nn

from bundle.schema import FeatureSchema
from models.networks.cold import Cold
from models.networks.config import (
    ColdConfig,
    DeepFmConfig,
    DicmConfig,
    DinConfig,
    DqmConfig,
    DssmConfig,
    EmbeddedConfig,
    FmConfig,
    FnnConfig,
    GwenConfig,
    LrConfig,
    MlrConfig,
    MtlConfig,
    NetworkConfig,
    PnnConfig,
    WideDeepConfig,
)
from models.networks.deepfm import DeepFm
from models.networks.dicm import Dicm
from models.networks.din import Din
from models.networks.dqm import Dqm
from models.networks.dssm import Dssm
from models.networks.fm import Fm
from models.networks.fnn import Fnn
from models.networks.gwen import Gwen
from models.networks.low_rank import thin
from models.networks.lr import Lr
from models.networks.mlr import Mlr
from models.networks.network import Network
from models.networks.pnn import Pnn
from models.networks.related import mtl
from models.networks.wide_deep import WideDeep

NETWORKS: dict[type[NetworkConfig], Callable[[Any, FeatureSchema], Network]] = {
    LrConfig: Lr,
    MlrConfig: Mlr,
    DqmConfig: Dqm,
    GwenConfig: Gwen,
    FmConfig: Fm,
    WideDeepConfig: WideDeep,
    FnnConfig: Fnn,
    PnnConfig: Pnn,
    DeepFmConfig: DeepFm,
    DinConfig: Din,
    DssmConfig: Dssm,
    ColdConfig: Cold,
    MtlConfig: mtl,
    DicmConfig: Dicm,
}


def build(config: NetworkConfig, schema: FeatureSchema) -> Network:
    """A freshly initialised network. Its weights depend on torch's seed alone. ConfigError names a table or a layer of
    the configuration that it has not."""
    network = NETWORKS[type(config)](config, schema)
    if isinstance(config, EmbeddedConfig):
        thin(network, config.low_rank)
    return network


def parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
