"""What the funnel loses: how many of the fine-ranker's top 10 over the whole catalogue each stage lets through.

The stages do what serving does, with the same cells and the same vectors of bytes, all but one thing: ads from posting
lists are not added to the matched.

Ranking everything with the fine-ranker is the reference. Recall of a stage = share of the reference's top 10 that is
still there after it; eCPM lost = 1 - Σ eCPM of the funnel's top 10 / Σ eCPM of the reference's, both with the
fine-ranker's own pCTR.

Other pre-rankers may order the same ads after Qscore (models/prerankers.py); matching stays that of the two towers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from bundle.ad_vectors import AdVectors
from bundle.cell_files import arrange
from bundle.schema import FIRST_KNOWN
from models.cells import cell_of_ads
from models.checkpoint import Checkpoint
from models.config import ConfigError
from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.networks.network import TwoTower

TOP = 10
CHUNK = 1024
"""Candidates scored at once: bounds memory to CHUNK x history length activations."""


@dataclass(frozen=True, slots=True)
class FunnelSizes:
    """Ads kept by matching (the best cells of DQM vectors), Qscore and DQM. ConfigError unless all are above 0."""

    retrieval: int
    qscore: int
    prerank: int

    def __post_init__(self) -> None:
        for name in ("retrieval", "qscore", "prerank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the funnel's size {name} is {getattr(self, name)}, at least 1 is needed")


class PreRanker(Protocol):
    """A click probability of some ads for one request."""

    def pctr(self, batch: Batch, ads: npt.NDArray[np.int64], /) -> npt.NDArray[np.float32]:
        """float32[n] of the catalogue's ads `ads`, counted from 0 without the reserved rows."""

    @property
    def multiply_adds(self) -> int:
        """A candidate."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: what the fine-ranker makes of every ad, and the ads that Qscore left."""

    batch: Batch
    ecpm: npt.NDArray[np.float32]
    best: npt.NDArray[np.int64]
    scored: npt.NDArray[np.int64]

    def recall(self, kept: npt.NDArray[np.int64]) -> float:
        """Share of the best that is among the kept."""
        return len(np.intersect1d(self.best, kept)) / len(self.best)

    def lost(self, kept: npt.NDArray[np.int64]) -> float:
        """Share of the best's eCPM that the best of the kept do not have."""
        reachable = float(self.ecpm[self.best].sum())
        shown = kept[top(self.ecpm[kept], TOP)]
        return 1 - float(self.ecpm[shown].sum()) / reachable if reachable > 0 else 0.0


@dataclass(slots=True)
class Rival:
    """One pre-ranker in the place of the two towers, and what was found of it."""

    preranker: PreRanker
    found: list[tuple[float, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def ask(self, asked: Asked, bids: npt.NDArray[np.float32], keep: int) -> None:
        """Let it order what Qscore left."""
        started = perf_counter()
        value = self.preranker.pctr(asked.batch, asked.scored) * bids[asked.scored]
        kept = asked.scored[top(value, keep)]
        self.seconds.append(perf_counter() - started)
        self.found.append((asked.recall(kept), asked.lost(kept)))

    def figures(self) -> dict[str, float]:
        """Means, what a candidate costs, and the median time."""
        recall, lost = (float(each) for each in np.mean(self.found, axis=0))
        return {
            "recall_after_prerank": recall,
            "ecpm_lost": lost,
            "multiply_adds": float(self.preranker.multiply_adds),
            "ms": float(np.median(self.seconds)) * 1e3,
        }


def measure_funnel(
    finerank: Checkpoint,
    prerank: Checkpoint,
    qscore: Checkpoint,
    data: PreparedData,
    split: str,
    sizes: FunnelSizes,
    requests: int,
    seed: int = 0,
    rivals: Mapping[str, PreRanker] | None = None,
) -> dict[str, float]:
    """Mean recall of each stage and eCPM lost, over a seeded sample of a split's requests.

    For each of `rivals`, by name: the same in the place of the two towers after Qscore, the mean multiply-adds a
    candidate, and the median milliseconds that ordering what Qscore left took.
    """
    if requests < 1:
        raise ConfigError(f"the funnel is to be measured on {requests} requests, at least 1 is needed")
    towers = prerank.network()
    if not isinstance(towers, TwoTower):
        raise ConfigError(f"{prerank.folder}: pre-ranking needs two towers, not {prerank.config.model.kind!r}")
    fine, statics = finerank.network(), qscore.qscore().scores
    worth = statics * data.ads.bids
    bids = data.ads.bids[FIRST_KNOWN:]
    found: list[list[float]] = []
    others = {name: Rival(each) for name, each in (rivals or {}).items()}
    with torch.inference_mode():
        chunks = catalogue(data)
        vectors = torch.cat([towers.ad_vectors(ads, numbers) for ads, numbers in chunks]).numpy()
        stored, vectors = AdVectors.of(vectors), np.pad(vectors, ((FIRST_KNOWN, 0), (0, 0)))
        order, cells = arrange(vectors, worth, cell_of_ads(vectors, seed))
        for batch in sample(data, split, requests, seed):
            query, offset = towers.query(batch)
            logits = [fine(with_candidates(batch, ads, numbers)) for ads, numbers in chunks]
            pctr = torch.sigmoid(torch.cat(logits)).numpy()
            ecpm = pctr * bids
            matched = order[cells.nearest(query[0].numpy(), sizes.retrieval).rows()] - FIRST_KNOWN
            scored = matched[top(worth[FIRST_KNOWN + matched], sizes.qscore)]
            prerank_pctr = 1 / (1 + np.exp(-(stored.products(scored, query[0].numpy()) + offset.item())))
            near = scored[top(prerank_pctr * bids[scored], sizes.prerank)]
            asked = Asked(batch, ecpm, top(ecpm, TOP), scored)
            found.append([*map(asked.recall, (matched, scored, near)), asked.lost(near)])
            for rival in others.values():
                rival.ask(asked, bids, sizes.prerank)
    mean = np.mean(found, axis=0)
    names = ("recall_after_retrieval", "recall_after_qscore", "recall_after_prerank", "ecpm_lost")
    figures = {f"funnel.{name}": float(value) for name, value in zip(names, mean, strict=True)}
    for name, rival in others.items():
        figures |= {f"funnel.{name}.{key}": value for key, value in rival.figures().items()}
    return figures | {"funnel.requests": float(len(found)), "funnel.ads": float(len(bids))}


def top(scores: npt.NDArray[np.float32], n: int) -> npt.NDArray[np.int64]:
    """Positions of the n largest scores, in no order."""
    return np.argpartition(-scores, n - 1)[:n] if n < len(scores) else np.arange(len(scores))


def catalogue(data: PreparedData) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Encoded ads without the reserved rows, in chunks: ids int64[<= CHUNK, A], numbers float32[<= CHUNK, Na]."""
    ids = torch.from_numpy(data.ads.fields[FIRST_KNOWN:]).long()
    numbers = torch.from_numpy(data.ads.numbers[FIRST_KNOWN:])
    return list(zip(torch.split(ids, CHUNK), torch.split(numbers, CHUNK), strict=True))


def sample(data: PreparedData, split: str, requests: int, seed: int) -> list[Batch]:
    """Up to `requests` requests of a split, each a batch of its own (B = 1)."""
    chosen: list[Batch] = []
    for batch in batches(data, split, 1, seed):
        chosen.append(batch)
        if len(chosen) == requests:
            break
    return chosen


def with_candidates(batch: Batch, ads: torch.Tensor, numbers: torch.Tensor) -> Batch:
    """The one request of `batch` with other candidates, all at position 0."""
    zeros = torch.zeros(len(ads), dtype=torch.int64)
    return replace(batch, ads=ads, ad_numbers=numbers, request=zeros, positions=zeros)
