"""DIN the way it is usually exported: the request repeated for every candidate, [q, k, q - k, q * k] written out."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bundle.manifest import GraphSpec
from bundle.schema import PADDING
from export.parity import Feeds
from export.to_onnx import candidate_inputs, common_inputs, export_graph
from models.networks.attention import ActivationUnit
from models.networks.din import Din
from models.networks.encoder import SideEncoder
from models.networks.layers import key
from models.networks.network import ONLINE_POSITION


class TiledDin(nn.Module):
    """Inputs of N candidates, each with its own copy of the request -> logits [N]."""

    def __init__(self, din: Din) -> None:
        super().__init__()
        self.din = din

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        """Inputs of a served graph with an axis of N candidates in front: `user` int64[N, U], `history_NAME`
        int64[N, L, H], `ads` int64[N, A] and so on."""
        din, ads = self.din, feeds["ads"]
        absent = ads[:, :0]
        user = din.user(din.arena, feeds.get("user", absent), feeds.get("user_numbers"))
        context = din.context(din.arena, feeds.get("context", absent), feeds.get("context_numbers"))
        parts = [user, context, din.ad(din.arena, ads, feeds.get("ad_numbers"))]
        for history in din.schema.histories:
            encoder, unit = din.behaviours[key(history)], din.attention[key(history)]
            assert isinstance(encoder, SideEncoder)
            assert isinstance(unit, ActivationUnit)
            ids = feeds[f"history_{history.name}"]
            k = encoder(din.arena, ids)  # [N, L, D]
            q = encoder(din.arena, ads[:, din.schema.history_columns(history)]).unsqueeze(1).expand_as(k)
            x = unit.first_activation(unit.first(torch.cat([q, k, q - k, q * k], dim=-1)))
            scores = unit.out(unit.second_activation(unit.second(x))).squeeze(-1)
            filled = ids[..., 0] != PADDING
            parts.append((_weights(unit, scores, filled).unsqueeze(1) @ k).squeeze(1))
        logits: Tensor = din.mlp(torch.cat(parts, dim=-1)).squeeze(-1)
        return logits if din.position is None else logits + din.position.weight[ONLINE_POSITION]


def _weights(unit: ActivationUnit, scores: Tensor, filled: Tensor) -> Tensor:
    """Scores [N, L] as weights, 0 at padding."""
    if unit.mode == "sum":
        return scores * filled
    scaled = (scores / unit.width**0.5).masked_fill(~filled, -torch.inf)
    return torch.softmax(scaled, dim=1).nan_to_num(0.0)


def export_tiled(din: Din, path: Path) -> GraphSpec:
    """Write the plain graph; the axis of the candidates and the histories' lengths vary."""
    common = {name: ("ads", *axes) for name, axes in common_inputs(din.schema).items()}
    return export_graph(TiledDin(din), common | candidate_inputs(din.schema), ["logits"], path)


def tiled(feeds: Feeds) -> Feeds:
    """Inputs of a served graph as the plain one takes them."""
    n = len(feeds["ads"])
    return {name: each if name.startswith("ad") else _repeated(each, n) for name, each in feeds.items()}


def _repeated(array: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    return np.repeat(array[np.newaxis], times, axis=0)
