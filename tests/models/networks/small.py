"""One small configuration, or a few, of every network: what must hold of all of them is tested on these."""

import torch

from models.networks.config import DinConfig, DqmConfig, GwenConfig, LrConfig, MlrConfig
from models.networks.network import Network
from models.networks.registry import NetworkConfig, build
from tests.models.world import SCHEMA, shake

SMALL: dict[str, NetworkConfig] = {
    "dqm": DqmConfig(kind="dqm", embedding=4, dimension=5, hidden=(8,)),
    "gwen": GwenConfig(kind="gwen", embedding=4, hidden=(8, 4), position_bias=True),
    "din": DinConfig(kind="din", embedding=4, attention_hidden=(6, 3), hidden=(8, 4), position_bias=True),
    "din-softmax": DinConfig(kind="din", embedding=4, attention="softmax", attention_hidden=(6, 3), hidden=(8, 4)),
    "lr": LrConfig(kind="lr", position_bias=True),
    "lr-cascade": LrConfig(kind="lr", cascade=True),
    "mlr": MlrConfig(kind="mlr", pieces=3, position_bias=True),
    "mlr-prior": MlrConfig(kind="mlr", pieces=3, prior=True, cascade=True),
}


def small(name: str, seed: int = 0) -> Network:
    """A network of random weights, in evaluation mode."""
    torch.manual_seed(seed)
    network = build(SMALL[name], SCHEMA)
    shake(network, seed)
    return network.eval()
