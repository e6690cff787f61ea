"""What may order the ads after Qscore: Qscore itself, two towers by their stored vectors, or any network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bundle.ad_vectors import AdVectors
from bundle.schema import FIRST_KNOWN
from models.checkpoint import Checkpoint
from models.config import ConfigError
from models.data.batches import Batch
from models.data.prepared import PreparedData
from models.funnel import CHUNK, PreRanker, catalogue, with_candidates
from models.networks.config import QscoreConfig
from models.networks.cost import cost_of
from models.networks.network import Network, TwoTower

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

COLUMNS = ("recall_after_prerank", "ecpm_lost", "multiply_adds", "ms")


@dataclass(frozen=True, slots=True)
class ByQscore:
    """The static score of each ad."""

    scores: Float32
    """float32[n + 2]"""

    def pctr(self, _: Batch, ads: Int64) -> Float32:
        """A look-up."""
        return self.scores[FIRST_KNOWN + ads]

    @property
    def multiply_adds(self) -> int:
        """None."""
        return 0


@dataclass(frozen=True, slots=True)
class ByVectors:
    """Two towers, by ad vectors in bytes as a bundle stores them."""

    towers: TwoTower
    stored: AdVectors
    """Of the ads without the reserved rows."""

    @classmethod
    def of(cls, towers: TwoTower, data: PreparedData) -> "ByVectors":
        """With the vectors of all ads."""
        with torch.inference_mode():
            vectors = torch.cat([towers.ad_vectors(ads, numbers) for ads, numbers in catalogue(data)])
        return cls(towers, AdVectors.of(vectors.numpy()))

    def pctr(self, batch: Batch, ads: Int64) -> Float32:
        """One query vector, and an inner product an ad."""
        query, offset = self.towers.query(batch)
        logits = self.stored.products(ads, query[0].numpy()) + offset.item()
        found: Float32 = 1 / (1 + np.exp(-logits))
        return found

    @property
    def multiply_adds(self) -> int:
        """The inner product."""
        return int(self.stored.codes.shape[1])


@dataclass(frozen=True, slots=True)
class ByNetwork:
    """Any network, as it is trained: in torch."""

    network: Network
    data: PreparedData

    def pctr(self, batch: Batch, ads: Int64) -> Float32:
        """The request with `ads` as its candidates, CHUNK at once."""
        logits = []
        for start in range(0, len(ads), CHUNK):
            rows = FIRST_KNOWN + ads[start : start + CHUNK]
            ids, numbers = torch.from_numpy(self.data.ads.fields[rows]), torch.from_numpy(self.data.ads.numbers[rows])
            logits.append(self.network(with_candidates(batch, ids.long(), numbers)))
        found: Float32 = torch.sigmoid(torch.cat(logits)).numpy()
        return found

    @property
    def multiply_adds(self) -> int:
        """Of its matrix products, with full histories."""
        return cost_of(self.network).candidate


def prerankers(checkpoints: Sequence[Checkpoint], data: PreparedData) -> dict[str, PreRanker]:
    """What each checkpoint pre-ranks by, under its configuration's name. ConfigError when two have the same."""
    found: dict[str, PreRanker] = {}
    for checkpoint in checkpoints:
        checkpoint.require_same_data(data)
        if (name := checkpoint.config.name) in found:
            raise ConfigError(f"{checkpoint.folder}: {name!r} is compared already, pre-rankers must differ in name")
        found[name] = preranker(checkpoint, data)
    return found


def preranker(checkpoint: Checkpoint, data: PreparedData) -> PreRanker:
    """What one checkpoint pre-ranks by."""
    if isinstance(checkpoint.config.model, QscoreConfig):
        return ByQscore(checkpoint.qscore().scores)
    network = checkpoint.network()
    return ByVectors.of(network, data) if isinstance(network, TwoTower) else ByNetwork(network, data)


def table(names: Sequence[str], figures: Mapping[str, float]) -> str:
    """A line for each pre-ranker, of the figures that `measure_funnel` gave."""
    width = max(len("pre-ranker"), *map(len, names))
    lines = ["  " + "pre-ranker".ljust(width) + "".join(name.rjust(22) for name in COLUMNS)]
    for name in names:
        recall, lost, products, ms = (figures[f"funnel.{name}.{column}"] for column in COLUMNS)
        lines.append(f"  {name.ljust(width)}{recall:22.4f}{lost:22.4f}{products:22,.0f}{ms:22.3f}")
    return "\n".join(lines)
