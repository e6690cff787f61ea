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
from models.networks.network import Network


class EmbeddingL2:
    """The penalty of one network on one dataset."""

    def __init__(self, network: Network, data: PreparedData, strength: float) -> None:
        self.network, self.strength = network, strength
        self.weights = {"": network.arena.weight} | {each.name: each.weight for each in network.arena.compressed()}
        """"": the arena's array; by name, tables that stand beside it."""
        counts = {name: torch.zeros(len(weight), dtype=torch.float64) for name, weight in self.weights.items()}
        for batch in batches(data, "train", 65_536):
            for name, rows in self._rows(batch).items():
                counts[name] += torch.bincount(rows, minlength=len(counts[name]))
        self.counts = {name: count.clamp(min=1).float() for name, count in counts.items()}
        self.occurrences = self.counts[""]

    def penalty(self, batch: Batch) -> Tensor:
        """A scalar to add to the mean loss of the batch."""
        total = torch.zeros(())
        for name, found in self._rows(batch).items():
            rows = torch.unique(found)
            rows = rows[rows != PADDING]
            squares = self.weights[name][rows].square().sum(1)
            total = total + (squares / self.counts[name][rows]).sum()
        return 0.5 * self.strength * total

    def _rows(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of all ids in the batch, by the weight that they are of."""
        found: dict[str, list[Tensor]] = {}
        for encoder, ids in self.network.looked_up(batch):
            for name, rows in encoder.rows(self.network.arena, ids):
                found.setdefault(name, []).append(rows)
        return {name: torch.cat(rows) for name, rows in found.items()}
