"""DIN the way it is usually exported: the user repeated for every candidate, [q, k, q - k, q * k] written out."""

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.work import HISTORY_NAME
from bundle.manifest import GraphSpec
from bundle.schema import PADDING
from export.to_onnx import export_graph
from models.networks.attention import ActivationUnit
from models.networks.din import Din
from models.networks.layers import key


class TiledDin(nn.Module):
    """Inputs of N candidates, each with its own copy of user and history -> logits [N]."""

    def __init__(self, din: Din) -> None:
        super().__init__()
        self.din = din

    def forward(self, feeds: dict[str, Tensor]) -> Tensor:
        """`user` int64[N, U], `history_clicks` int64[N, L, H], `ads` int64[N, A]."""
        din = self.din
        history = next(h for h in din.schema.histories if h.name == HISTORY_NAME)
        encoder, unit = din.behaviours[key(history)], din.attention[key(history)]
        assert isinstance(unit, ActivationUnit)
        ids = feeds[f"history_{HISTORY_NAME}"]
        k = encoder(din.arena, ids)  # [N, L, D]
        q = encoder(din.arena, feeds["ads"]).unsqueeze(1).expand_as(k)
        x = unit.first_activation(unit.first(torch.cat([q, k, q - k, q * k], dim=-1)))
        x = unit.second_activation(unit.second(x))
        scores, filled = unit.out(x).squeeze(-1), ids[..., 0] != PADDING
        if unit.mode == "softmax":
            scores = torch.softmax((scores / unit.width**0.5).masked_fill(~filled, -torch.inf), dim=1).nan_to_num(0.0)
        weights = scores * filled
        interest = (weights.unsqueeze(1) @ k).squeeze(1)
        user, ad = din.user(din.arena, feeds["user"]), din.ad(din.arena, feeds["ads"])
        logits: Tensor = din.mlp(torch.cat([user, ad, interest], dim=-1)).squeeze(-1)
        return logits


def export_tiled(din: Din, path: Path) -> GraphSpec:
    """Write the plain graph; axes `ads` and `length` vary."""
    columns = din.schema.ad.id_columns
    inputs: dict[str, tuple[str | int, ...]] = {
        "user": ("ads", din.schema.user.id_columns),
        f"history_{HISTORY_NAME}": ("ads", "length", columns),
        "ads": ("ads", columns),
    }
    return export_graph(TiledDin(din), inputs, ["logits"], path)
