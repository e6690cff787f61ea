"""Any network as it is served: the batch of one request. What depends on the request alone is computed once, as in
training; DIN has a graph of its own (export/din_graph.py), because attention is where the time goes."""

import numpy as np
import torch
from torch import Tensor, nn

from bundle.manifest import FixedPosition
from export.column_attention import ColumnAttention, padded
from export.din_graph import DinServing
from export.stored_arena import stored
from models.data.batches import Batch
from models.networks.attention import ActivationUnit, Pooling
from models.networks.din import Din
from models.networks.layers import key
from models.networks.network import ONLINE_POSITION, Network

Feeds = dict[str, Tensor]


class ColumnPooling(nn.Module):
    """An activation unit over the behaviours of one request, padding included: DIN's, in the order of
    export/column_attention.py."""

    def __init__(self, unit: ActivationUnit, longest: int) -> None:
        super().__init__()
        self.attention = ColumnAttention(unit, longest)

    def forward(self, q: Tensor, k: Tensor, filled: Tensor, _: Tensor) -> Tensor:
        """Pooling's: q [N, D], k [1, L, D], filled bool[1, L] -> [N, D]."""
        rows = padded(k.squeeze(0), self.attention.blocks)
        real = padded(filled.squeeze(0).unsqueeze(1).float(), self.attention.blocks).squeeze(1) > 0
        pooled: Tensor = rows.T @ self.attention(q.T, rows, real)
        return pooled.T


class RequestGraph(nn.Module):
    """Named inputs of one request -> logits [N]."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = stored(network)
        longest = {key(history): history.max_length for history in network.schema.histories}
        pools = {path: each for path, each in self.network.named_modules() if isinstance(each, Pooling)}
        for path, each in pools.items():
            self.network.set_submodule(path, ColumnPooling(each.unit, longest[path.rpartition(".")[2]]))

    def forward(self, feeds: Feeds) -> Tensor:
        """Logits [N]; inputs as in bundle/golden.py, `ads` int64[N, A] and `ad_numbers` float32[N, Na]. All candidates
        are at position 0."""
        ads = feeds["ads"]
        ids, numbers = ads.new_zeros((1, 0)), torch.zeros((1, 0))
        one = {name: value.unsqueeze(0) for name, value in feeds.items() if not name.startswith("ad")}
        first = torch.zeros_like(ads[:, 0])
        nothing = np.zeros(0)
        logits: Tensor = self.network(
            Batch(
                user=one.get("user", ids),
                user_numbers=one.get("user_numbers", numbers),
                context=one.get("context", ids),
                context_numbers=one.get("context_numbers", numbers),
                histories={h.name: one[f"history_{h.name}"] for h in self.network.schema.histories},
                ads=ads,
                ad_numbers=feeds.get("ad_numbers", torch.zeros((1, 0)).expand(ads.shape[0], 0)),
                request=first,
                labels=first,
                positions=first,
                rows=nothing.astype(np.int32),
                users=nothing.astype(np.int64),
                truth=None,
            )
        )
        return logits


def serving_graph(network: Network) -> nn.Module:
    """The module to be exported: named inputs of one request -> logits [N]."""
    return DinServing(network) if isinstance(network, Din) else RequestGraph(network)


def fixed_position(network: Network) -> FixedPosition | None:
    """The position that the network's graph assumes of every candidate, and its bias; None when it has none."""
    bias = network.online_bias()
    return None if bias is None else FixedPosition(position=ONLINE_POSITION, bias=bias)
