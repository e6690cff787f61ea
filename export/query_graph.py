"""The query side of a two-tower network for one request; ad vectors are computed at export and stored."""

import torch
from torch import Tensor, nn

from export.stored_arena import stored
from models.networks.network import TwoTower

Feeds = dict[str, Tensor]


class QueryGraph(nn.Module):
    """Named inputs of one request -> query vector [d] and offset []."""

    def __init__(self, network: TwoTower) -> None:
        super().__init__()
        self.network = stored(network)

    def forward(self, feeds: Feeds) -> tuple[Tensor, Tensor]:
        """A batch of one request through `TwoTower.query_of`, at position 0."""
        one = {name: value.unsqueeze(0) for name, value in feeds.items()}
        ids = torch.zeros((1, 0), dtype=torch.int64)
        numbers = torch.zeros((1, 0))
        query, offset = self.network.query_of(
            one.get("user", ids),
            one.get("user_numbers", numbers),
            one.get("context", ids),
            one.get("context_numbers", numbers),
            {h.name: one[f"history_{h.name}"] for h in self.network.schema.histories},
        )
        return query.squeeze(0), self.network.online(offset).squeeze(0)
