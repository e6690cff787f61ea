"""A linear layer as two thin ones: y = U·(V x + c) + b with V [r, in] and U [out, r].

r·(in + out) multiply-adds and weights in the place of in·out: less where r < in·out / (in + out). Between the two there
may be an activation (arXiv 2405.18146 fine-tunes with one); without it the inner one has no bias.

Where a network splits a layer's input by what is known once a request (layers.grouped, ActivationUnit), it is the inner
one that is split: `entry` gives it, and `finish` does what is left. Both leave a plain layer as it is.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.config import ConfigError
from models.networks.activations import Activation
from models.networks.config import LowRankConfig


class LowRank(nn.Module):
    """[..., out] of [..., width] through `rank` values."""

    def __init__(self, width: int, out: int, rank: int, between: str | None) -> None:
        super().__init__()
        self.inner = nn.Linear(width, rank, bias=between is not None)
        self.between: nn.Module | None = Activation(between, rank) if between is not None else None
        self.outer = nn.Linear(rank, out)

    def finish(self, x: Tensor) -> Tensor:
        """[..., out] of what `inner` gave, [..., rank]."""
        result: Tensor = self.outer(x if self.between is None else self.between(x))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """[..., out]"""
        return self.finish(self.inner(x))


def entry(layer: nn.Module) -> nn.Linear:
    """The part of a linear layer that reads its input: the layer itself, or the inner factor."""
    found = layer.inner if isinstance(layer, LowRank) else layer
    assert isinstance(found, nn.Linear)
    return found


def finish(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer's output of what its `entry` gave."""
    return layer.finish(x) if isinstance(layer, LowRank) else x


def linear_layers(network: nn.Module) -> dict[str, nn.Linear]:
    """Path -> layer, of all linear layers that are not of low rank."""
    inside = {f"{path}.{part}" for path, each in network.named_modules() if isinstance(each, LowRank)
              for part in ("inner", "outer")}  # fmt: skip
    return {path: each for path, each in network.named_modules() if isinstance(each, nn.Linear) and path not in inside}


def thin(network: nn.Module, wanted: Mapping[str, LowRankConfig]) -> None:
    """Put freshly initialised layers of low rank in the place of those named. ConfigError for a layer that is not
    there, and for a rank above the smaller side of one."""
    layers = linear_layers(network)
    for path, each in wanted.items():
        layer = layers.get(path)
        if layer is None:
            raise ConfigError(f"model.low_rank: there is no linear layer {path!r}, known: {', '.join(layers)}")
        if each.rank > min(layer.weight.shape):
            raise ConfigError(
                f"model.low_rank: {path!r} has rank {each.rank}, a layer of {layer.out_features} x "
                f"{layer.in_features} has {min(layer.weight.shape)} at most"
            )
        network.set_submodule(path, LowRank(layer.in_features, layer.out_features, each.rank, each.between))
