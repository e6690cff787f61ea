"""DIN as it is served: one request, its user side computed once, its N candidates never tiled.

The same function as models/networks/din.py, in another order. Attention is export/column_attention.py; candidates are
the innermost axis from there on. The first layer of the network on top is split alike: what depends on the request
alone is computed once, and the interest vector K'w enters it as (W K') w. Linear parts of the activations are folded
into the layers around them (export/columns.py).

A layer of low rank is two layers, the inner one of which is split.

Letters: L behaviours, N candidates, D width of a behaviour, h units of a layer.
"""

import torch
from torch import Tensor, nn

from bundle.schema import PADDING
from export.column_attention import ColumnAttention, padded
from export.columns import ColumnLinear, folded
from export.stored_arena import stored
from models.networks.attention import ActivationUnit
from models.networks.din import Din
from models.networks.encoder import SideEncoder
from models.networks.layers import key

Feeds = dict[str, Tensor]


class DinServing(nn.Module):
    """Named inputs of one request -> logits [N]."""

    def __init__(self, din: Din) -> None:
        super().__init__()
        din = stored(din)
        self.schema, self.arena, self.behaviours = din.schema, din.arena, din.behaviours
        self.user, self.context, self.ad = din.user, din.context, din.ad
        self.attention = nn.ModuleDict(
            {key(h): ColumnAttention(_unit(din.attention[key(h)]), h.max_length) for h in din.schema.histories}
        )
        weights, biases, activations = folded([*din.mlp.layers, din.mlp.out], list(din.mlp.activations))
        if din.position is not None:  # that of the first position, where all candidates are
            biases[-1] = _there(biases[-1]) + din.position.weight.detach()[0]
        first_bias = biases[0] if biases[0] is not None else weights[0].new_zeros(len(weights[0]))
        widths = [self.user.dimension + self.context.dimension, self.ad.dimension]
        widths += din.behaviour_widths
        common, ad, *interests = torch.split(weights[0], widths, dim=1)
        self.common_weight, self.first_bias = nn.Parameter(common.T.clone()), nn.Parameter(first_bias)
        self.ad_weight = nn.Parameter(ad.clone())
        self.interest_weights = nn.ParameterList([each.clone() for each in interests])
        self.activations = nn.ModuleList(activations)
        self.layers = nn.ModuleList(map(ColumnLinear, weights[1:], biases[1:]))

    def forward(self, feeds: Feeds) -> Tensor:
        """Logits [N]; inputs as in bundle/golden.py, `ads` int64[N, A] and `ad_numbers` float32[N, Na]."""
        ads = feeds["ads"]
        ads = self.ad.embedded(ads)
        absent, every = ads.new_zeros(0), list(range(ads.shape[1]))
        once: Tensor = self.first_bias  # [h]: what depends on the request alone
        if self.common_weight.shape[0]:
            common = torch.cat(
                [
                    self.user(self.arena, feeds.get("user", absent), feeds.get("user_numbers")),
                    self.context(self.arena, feeds.get("context", absent), feeds.get("context_numbers")),
                ]
            )
            # A row times a matrix: the other way round ONNX Runtime takes 67 us for 200 x 64 instead of 7.
            once = (common.unsqueeze(0) @ self.common_weight + once).squeeze(0)
        # [N, A, d]: behaviours have some of the same columns
        embedded = self.arena(*self.ad.asked(ads)) if self.ad.is_plain else None
        ad = self.ad(self.arena, ads, feeds.get("ad_numbers"), embedded)
        x = self.ad_weight @ ad.T + once.unsqueeze(-1)  # [h, N]
        for weight, history in zip(self.interest_weights, self.schema.histories, strict=True):
            attention = self.attention[key(history)]
            assert isinstance(attention, ColumnAttention)
            ids = padded(feeds[f"history_{history.name}"], attention.blocks)  # [L, H]
            encoder = self.behaviours[key(history)]
            assert isinstance(encoder, SideEncoder)
            k = encoder(self.arena, ids)  # [L, D]
            columns = [column for column in self.schema.history_columns(history) if column in every]
            chosen = slice(None) if columns == every else columns
            known = embedded[:, chosen] if embedded is not None and encoder.is_plain else None
            q = encoder(self.arena, ads[:, chosen], embedded=known).T  # [D, N]
            x = x + (weight @ k.T) @ attention(q, k, ids[:, 0] != PADDING)
        for activation, layer in zip(self.activations, self.layers, strict=True):
            x = layer(activation(x))
        logits: Tensor = x.squeeze(0)
        return logits


def _unit(module: nn.Module) -> ActivationUnit:
    assert isinstance(module, ActivationUnit)
    return module


def _there(bias: Tensor | None) -> Tensor:
    assert bias is not None, "a network's last layer has a bias"
    return bias
