"""Mini-batch-aware L2 of embeddings (arXiv 1706.06978, section 5.1).

    λ/2 · Σ over rows j that occur in the batch of  ‖w_j‖² / n_j,    n_j the row's occurrences in the training split

A row is paid for once each time a batch holds it, so frequent ids are not punished for being frequent, and rows that
the batch does not touch cost nothing.
"""

import torch
from torch import Tensor

from bundle.schema import PADDING
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.networks.layers import SideEncoder, key
from models.networks.network import Network


class EmbeddingL2:
    """The penalty of one network on one dataset."""

    def __init__(self, network: Network, data: PreparedData, strength: float) -> None:
        self.network, self.strength = network, strength
        counts = torch.zeros(len(network.arena.weight), dtype=torch.float64)
        for batch in batches(data, "train", 65_536):
            rows = torch.cat([each.flatten() for each in self._rows(batch)])
            counts += torch.bincount(rows, minlength=len(counts))
        self.occurrences = counts.clamp(min=1).float()

    def penalty(self, batch: Batch) -> Tensor:
        """A scalar to add to the mean loss of the batch."""
        rows = torch.unique(torch.cat([each.flatten() for each in self._rows(batch)]))
        rows = rows[rows != PADDING]
        squares = self.network.arena.weight[rows].square().sum(1)
        return 0.5 * self.strength * (squares / self.occurrences[rows]).sum()

    def _rows(self, batch: Batch) -> list[Tensor]:
        """Arena rows of all ids in the batch."""
        network, arena = self.network, self.network.arena
        rows = [
            arena.rows(batch.user, network.user.offsets),
            arena.rows(batch.context, network.context.offsets),
            arena.rows(network.ad.embedded(batch.ads), network.ad.offsets),
        ]
        for history in network.schema.histories:
            encoder = network.behaviours[key(history)]
            assert isinstance(encoder, SideEncoder)
            rows.append(arena.rows(encoder.embedded(batch.histories[history.name]), encoder.offsets))
        return rows
