"""DIN as it is served: one request, its user side computed once, its N candidates never tiled.

The same function as models/din.py, in another order. With W = [Wq Wk Wd Wp] the activation unit's first layer is

    Wq q + Wk k + Wd (q - k) + Wp (q ⊙ k)  =  (Wp·diag(k) + Wq + Wd) q  +  (Wk - Wd) k

so behaviour l gets one matrix A_l = Wp·diag(k_l) + Wq + Wd, and the layer for all behaviours and candidates is a single
product [L·h, D] @ [D, N]. Candidates stay the innermost axis from there on. The network on top is split alike: what
depends on the request alone is computed once, and the interest vector K'w enters its first layer as (W K') w.

Letters: L behaviours, N candidates, D width of a behaviour, h, g units of the activation unit.
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING
from models.attention import ActivationUnit
from models.din import Din
from models.layers import Activation, Arena, SideEncoder, key

Feeds = dict[str, Tensor]


class ColumnActivation(nn.Module):
    """An activation of models/layers.py for [..., units, N]: parameters stand along the last axis but one."""

    scale: Tensor
    shift: Tensor
    alpha: Tensor
    slope: Tensor

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.kind = activation.kind
        if activation.dice is not None:
            dice = activation.dice
            scale = torch.rsqrt(dice.variance + dice.epsilon)
            self.register_buffer("scale", scale.unsqueeze(-1))
            self.register_buffer("shift", (-dice.mean * scale).unsqueeze(-1))
            self.register_buffer("alpha", dice.alpha.detach().unsqueeze(-1))
        if activation.slope is not None:
            self.register_buffer("slope", activation.slope.detach().unsqueeze(-1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., units, N]"""
        if self.kind == "dice":
            p = torch.sigmoid(x * self.scale + self.shift)
            activated: Tensor = x * (self.alpha + p * (1 - self.alpha))
            return activated
        if self.kind == "prelu":
            return torch.where(x > 0, x, x * self.slope)
        return torch.sigmoid(x) if self.kind == "sigmoid" else torch.relu(x)


class ColumnAttention(nn.Module):
    """The activation unit for one request: how much each behaviour weighs for each candidate."""

    for_q: Tensor
    for_k: Tensor
    for_product: Tensor

    def __init__(self, unit: ActivationUnit) -> None:
        super().__init__()
        for_q, for_k, for_product = (w.detach() for w in unit.split())
        self.register_buffer("for_q", for_q)
        self.register_buffer("for_k", for_k)
        self.register_buffer("for_product", for_product)
        self.first_bias = nn.Parameter(unit.first.bias.detach())
        self.second_weight = nn.Parameter(unit.second.weight.detach())
        self.second_bias = nn.Parameter(unit.second.bias.detach().unsqueeze(-1))
        self.out_weight = nn.Parameter(unit.out.weight.detach())
        self.out_bias = nn.Parameter(unit.out.bias.detach())
        self.first_activation = ColumnActivation(unit.first_activation)
        self.second_activation = ColumnActivation(unit.second_activation)
        self.mode, self.width = unit.mode, unit.width

    def forward(self, q: Tensor, k: Tensor, filled: Tensor) -> Tensor:
        """Weights [L, N] of candidates q [D, N] over behaviours k [L, D]; 0 where `filled` bool[L] is False."""
        matrices = k.unsqueeze(1) * self.for_product + self.for_q  # [L, h, D]
        units = self.for_q.shape[0]
        x = (matrices.flatten(0, 1) @ q).reshape(k.shape[0], units, -1)  # [L, h, N]
        x = x + (k @ self.for_k.T + self.first_bias).unsqueeze(-1)
        x = self.first_activation(x)
        x = self.second_activation(self.second_weight @ x + self.second_bias)  # [L, g, N]
        scores = (self.out_weight @ x).squeeze(1) + self.out_bias  # [L, N]
        present = filled.unsqueeze(-1)
        if self.mode == "sum":
            weights: Tensor = scores * present
            return weights
        # As in models/attention.py; exp(-1e30 - max) is 0, and a request without behaviours is masked to 0 as a whole.
        scaled = torch.where(present, scores / self.width**0.5, torch.full_like(scores, -1e30))
        return torch.softmax(scaled, dim=0) * present


class DinServing(nn.Module):
    """Named inputs of one request -> logits [N]."""

    arena: Arena
    user: SideEncoder
    context: SideEncoder
    ad: SideEncoder
    behaviours: nn.ModuleDict
    attention: nn.ModuleDict
    position_bias: Tensor

    def __init__(self, din: Din) -> None:
        super().__init__()
        self.schema, self.arena = din.schema, din.arena
        self.user, self.context, self.ad, self.behaviours = din.user, din.context, din.ad, din.behaviours
        self.attention = nn.ModuleDict({name: ColumnAttention(_unit(unit)) for name, unit in din.attention.items()})
        first, *rest = (layer for layer in din.mlp.layers if isinstance(layer, nn.Linear))
        widths = [
            din.user.dimension + din.context.dimension,
            din.ad.dimension,
            *(len(h.fields) * din.config.embedding for h in din.schema.histories),
        ]
        weights = torch.split(first.weight.detach(), widths, dim=1)
        self.common_weight, self.ad_weight = nn.Parameter(weights[0]), nn.Parameter(weights[1])
        self.interest_weights = nn.ParameterList(list(weights[2:]))
        self.first_bias = nn.Parameter(first.bias.detach())
        self.weights = nn.ParameterList([layer.weight.detach() for layer in [*rest, din.mlp.out]])
        self.biases = nn.ParameterList([layer.bias.detach().unsqueeze(-1) for layer in [*rest, din.mlp.out]])
        self.activations = nn.ModuleList(ColumnActivation(each) for each in _activations(din))
        bias = din.position.weight[0, 0].item() if din.position is not None else 0.0
        self.register_buffer("position_bias", torch.tensor(bias))

    def forward(self, feeds: Feeds) -> Tensor:
        """Logits [N]; inputs as in bundle/golden.py, `ads` int64[N, A] and `ad_numbers` float32[N, Na]."""
        ads = feeds["ads"]
        absent = ads.new_zeros(0)
        once: Tensor = self.first_bias  # [h]: what depends on the request alone
        if self.common_weight.shape[1]:
            common = torch.cat(
                [
                    self.user(self.arena, feeds.get("user", absent), feeds.get("user_numbers")),
                    self.context(self.arena, feeds.get("context", absent), feeds.get("context_numbers")),
                ]
            )
            once = self.common_weight @ common + once
        x = self.ad_weight @ self.ad(self.arena, ads, feeds.get("ad_numbers")).T  # [h, N]
        x = x + once.unsqueeze(-1)
        for weight, history in zip(self.interest_weights, self.schema.histories, strict=True):
            ids = feeds[f"history_{history.name}"]  # [L, H]
            encoder = self.behaviours[key(history)]
            k = encoder(self.arena, ids)  # [L, D]
            q = encoder(self.arena, ads[:, self.schema.history_columns(history)]).T  # [D, N]
            x = x + (weight @ k.T) @ self.attention[key(history)](q, k, ids[:, 0] != PADDING)
        for activation, layer, bias in zip(self.activations, self.weights, self.biases, strict=True):
            x = layer @ activation(x) + bias
        logits: Tensor = x.squeeze(0) + self.position_bias
        return logits


def _unit(module: nn.Module) -> ActivationUnit:
    assert isinstance(module, ActivationUnit)
    return module


def _activations(din: Din) -> list[Activation]:
    return [each for each in din.mlp.activations if isinstance(each, Activation)]
