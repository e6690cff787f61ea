"""Linear layers as two thin ones: classic SVD of the weights, or Atomic Feature Mimicking of the outputs.

    svd            W ≈ U_r S_r V_rᵀ, the nearest matrix of rank r (Eckart and Young)
    svd-weighted   W D ≈ U_r S_r V_rᵀ with D = diag(√E[x_i²]): an input that is always small may be far off
    afm            Cov(y) = U Λ Uᵀ of y = W x + b over calibration rows; y ≈ U_r U_rᵀ (W x + b) + (I - U_r U_rᵀ) E[y]
                   (arXiv 2405.18146, Atomic Feature Mimicking), so the inner factor is U_rᵀ W, the outer one U_r

AFM keeps what varies among real rows: its squared error there is the sum of the eigenvalues left out, the least that
any affine map of rank r has. Cov(y) = W Cov(x) Wᵀ, so the inputs' moments are all that is recorded.

An activation between the factors starts as the identity (PReLU of slope 1, Dice of α 1): the network computes the same
as without it until it is fine-tuned.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from models.compression.moments import Moments, of_inputs
from models.compression.recipe import Factorise
from models.compression.subject import CompressionError, Material, Subject
from models.networks.attention import ActivationUnit
from models.networks.config import LowRankConfig
from models.networks.low_rank import linear_layers
from models.networks.network import Network

LEAST = 1e-6
"""An input's weight in svd-weighted, relative to the largest: D is inverted."""


@dataclass(frozen=True, slots=True)
class Factors:
    """y ≈ outer (inner x + shift) + bias, float64. All of them at full rank, the most important first."""

    inner: Tensor
    """[R, in]"""
    shift: Tensor
    """[R]: centres what is between the factors."""
    outer: Tensor
    """[out, R]"""
    bias: Tensor
    """[out]"""
    strengths: Tensor
    """[R], falling: what each of them adds to the variance kept."""

    def rank_for(self, share: float) -> int:
        """The least rank that keeps this share of the variance."""
        kept = torch.cumsum(self.strengths, 0) / self.strengths.sum()
        return int((kept < share).sum()) + 1


def factorise(step: Factorise, subject: Subject, material: Material) -> Subject:
    """The network with the named layers of low rank. CompressionError for a layer that is not there, a rank that does
    not pay, weights that are not finite, and fewer calibration rows than a layer has outputs."""
    low_rank, network = subject.embedded.low_rank, subject.network
    layers = linear_layers(network)
    wanted = matched(step, layers)
    moments: dict[str, Moments] = {}
    if step.method != "svd":
        moments = of_inputs(network, wanted, material.calibration(step.impressions))
    state = dict(network.state_dict())
    ranks: dict[str, LowRankConfig] = {}
    for path, asked in wanted.items():
        layer = layers[path]
        if not all(torch.isfinite(p).all() for p in layer.parameters()):
            raise CompressionError(f"factorise: layer {path!r} holds weights that are not finite")
        if path in moments and moments[path].rows < layer.out_features:
            raise CompressionError(
                f"factorise: {moments[path].rows} calibration rows reach layer {path!r}, it has {layer.out_features} "
                f"outputs; impressions is {step.impressions}"
            )
        factors = factors_of(layer, step.method, moments.get(path))
        width = reads(network, path)
        if isinstance(asked, str):
            rank = max(1, int(worth(width, layer.out_features) / float(asked.removesuffix("x"))))
        else:
            rank = asked if isinstance(asked, int) else factors.rank_for(asked)
        _require_worth(path, layer, rank, asked, width)
        ranks[path] = LowRankConfig(rank=rank, between=step.between)
        del state[f"{path}.weight"], state[f"{path}.bias"]
        state |= {f"{path}.{name}": value for name, value in weights(factors, rank, step.between).items()}
    return subject.rebuilt(subject.model.model_copy(update={"low_rank": low_rank | ranks}), state)


def matched(step: Factorise, layers: dict[str, nn.Linear]) -> dict[str, int | float | str]:
    """Path -> rank, share or times fewer, patterns resolved; the last pattern that fits a layer counts."""
    found: dict[str, int | float | str] = {}
    for pattern, asked in step.layers.items():
        fits = [
            path
            for path, each in layers.items()
            if path == pattern or (each.out_features > 1 and fnmatchcase(path, pattern))
        ]
        if not fits:
            known = ", ".join(f"{path} ({each.out_features} x {each.in_features})" for path, each in layers.items())
            raise CompressionError(f"factorise: there is no linear layer {pattern!r}, known: {known}")
        found |= dict.fromkeys(fits, asked)
    return found


def reads(network: Network, path: str) -> int:
    """How many values a layer's product is over. The first layer of an activation unit has 4D inputs, but only those of
    q ⊙ k are multiplied for each pair of candidate and behaviour."""
    parent, _, name = path.rpartition(".")
    unit = network.get_submodule(parent)
    if isinstance(unit, ActivationUnit) and name == "first":
        return unit.width
    return linear_layers(network)[path].in_features


def factors_of(layer: nn.Linear, method: str, moments: Moments | None) -> Factors:
    """All factors of a layer."""
    weight, bias = layer.weight.detach().double(), layer.bias.detach().double()
    if method == "afm":
        assert moments is not None
        values, vectors = torch.linalg.eigh(weight @ moments.covariance @ weight.T)
        order = torch.argsort(values, descending=True)
        outer = vectors[:, order]
        inner = outer.T @ weight
        return Factors(inner, -inner @ moments.mean, outer, weight @ moments.mean + bias, values[order].clamp(min=0))
    scale = torch.ones(layer.in_features, dtype=torch.float64)
    if method == "svd-weighted":
        assert moments is not None
        scale = moments.second.diagonal().clamp(min=0).sqrt()
        scale = scale.clamp(min=LEAST * float(scale.max())) if scale.max() > 0 else torch.ones_like(scale)
    u, s, vt = torch.linalg.svd(weight * scale, full_matrices=False)
    inner = s.sqrt().unsqueeze(1) * vt / scale
    return Factors(inner, torch.zeros_like(s), u * s.sqrt(), bias, s.square())


def weights(factors: Factors, rank: int, between: str | None) -> dict[str, Tensor]:
    """The state_dict of a LowRank layer."""
    inner, outer, bias = factors.inner[:rank], factors.outer[:, :rank], factors.bias
    shift = factors.shift[:rank]
    found = {"inner.weight": inner, "outer.weight": outer}
    if between is None:
        found["outer.bias"] = bias + outer @ shift
    else:
        found |= {"inner.bias": shift, "outer.bias": bias}
    if between == "prelu":
        found["between.slope"] = torch.ones(rank)
    if between == "dice":
        found |= {"between.dice.alpha": torch.ones(rank), "between.dice.mean": torch.zeros(rank)}
        found |= {"between.dice.variance": torch.ones(rank), "between.dice.batches": torch.zeros(())}
    return {name: value.float().contiguous() for name, value in found.items()}


def worth(width: int, out: int) -> float:
    """The rank below which two thin layers have fewer multiply-adds than one."""
    return width * out / (width + out)


def _require_worth(path: str, layer: nn.Linear, rank: int, asked: int | float | str, width: int) -> None:
    out = layer.out_features
    said = f"factorise: layer {path!r} is {out} x {width}, rank {rank}"
    if isinstance(asked, float):
        said += f", which keeps {asked:g} of the variance,"
    if rank > min(out, layer.in_features):
        raise CompressionError(f"{said} is above {min(out, layer.in_features)}, the most it has")
    if rank >= worth(width, out):
        raise CompressionError(f"{said} saves nothing: it has to be below {worth(width, out):.1f}")
