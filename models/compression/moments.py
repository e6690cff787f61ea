"""First and second moments of what linear layers read, or activations give, over calibration batches.

A layer whose input is split by what is known once a request (models/networks/layers.py, attention.py) never sees it as
one tensor. So a copy of the network is run in which the layer W x + b is of low rank at full rank: V = I, and what
stands between the factors records x: every impression once, in an activation unit every behaviour of every impression.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models.data.batches import Batch
from models.networks.low_rank import LowRank, linear_layers
from models.networks.network import Network


class Moments:
    """Of rows [n, width], added up in float64."""

    def __init__(self, width: int) -> None:
        self.rows = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """x [..., width]"""
        rows = x.flatten(0, -2).double()
        self.rows += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        """E[x], float64[width]."""
        return self._sum / self.rows

    @property
    def second(self) -> Tensor:
        """E[x xᵀ], float64[width, width]."""
        return self._products / self.rows

    @property
    def covariance(self) -> Tensor:
        """Cov(x), float64[width, width]."""
        return self.second - torch.outer(self.mean, self.mean)


class _Recorder(nn.Module):
    def __init__(self, moments: Moments) -> None:
        super().__init__()
        self.moments = moments

    def forward(self, x: Tensor) -> Tensor:
        """x as it came."""
        self.moments.add(x)
        return x


def of_inputs(network: Network, paths: Iterable[str], batches: Iterable[Batch]) -> dict[str, Moments]:
    """Path of a linear layer -> moments of what it reads. The network is left as it is."""
    copied = copy.deepcopy(network)
    layers = linear_layers(copied)
    found: dict[str, Moments] = {}
    for path in paths:
        layer = layers[path]
        found[path] = Moments(layer.in_features)
        probe = LowRank(layer.in_features, layer.out_features, layer.in_features, None)
        with torch.no_grad():
            probe.inner.weight.copy_(torch.eye(layer.in_features))
        probe.between, probe.outer = _Recorder(found[path]), layer
        copied.set_submodule(path, probe)
    _run(copied, batches)
    return found


def of_activations(network: Network, paths: Iterable[str], batches: Iterable[Batch]) -> dict[str, Moments]:
    """Path of an Activation -> moments of what it gives. The network is left as it is."""
    copied = copy.deepcopy(network)
    found: dict[str, Moments] = {}
    for path in paths:
        activation = copied.get_submodule(path)
        units = activation.units
        assert isinstance(units, int)
        found[path] = Moments(units)
        activation.register_forward_hook(_hook(found[path]))
    _run(copied, batches)
    return found


def _hook(moments: Moments):  # type: ignore[no-untyped-def]
    def record(_: nn.Module, __: tuple[Tensor, ...], given: Tensor) -> None:
        moments.add(given)

    return record


def _run(network: Network, batches: Iterable[Batch]) -> None:
    network.eval()
    with torch.inference_mode():
        for batch in batches:
            network(batch)
