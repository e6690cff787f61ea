"""What the funnel loses: how many of the fine-ranker's top 10 over the whole catalogue each stage lets through.

The stages do what serving does, with the same cells and the same vectors of bytes, all but one thing: ads from posting
lists are not added to the matched.

Ranking everything with the fine-ranker is the reference. Recall of a stage = share of the reference's top 10 that is
still there after it; eCPM lost = 1 - Σ eCPM of the funnel's top 10 / Σ eCPM of the reference's, both with the
fine-ranker's own pCTR.
"""

from dataclasses import dataclass, replace

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


def measure_funnel(
    finerank: Checkpoint,
    prerank: Checkpoint,
    qscore: Checkpoint,
    data: PreparedData,
    split: str,
    sizes: FunnelSizes,
    requests: int,
    seed: int = 0,
) -> dict[str, float]:
    """Mean recall of each stage and eCPM lost, over a seeded sample of a split's requests."""
    if requests < 1:
        raise ConfigError(f"the funnel is to be measured on {requests} requests, at least 1 is needed")
    towers = prerank.network()
    if not isinstance(towers, TwoTower):
        raise ConfigError(f"{prerank.folder}: pre-ranking needs two towers, not {prerank.config.model.kind!r}")
    fine, statics = finerank.network(), qscore.qscore().scores
    worth = statics * data.ads.bids
    bids = data.ads.bids[FIRST_KNOWN:]
    found: list[list[float]] = []
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
            best = top(ecpm, TOP)
            matched = order[cells.nearest(query[0].numpy(), sizes.retrieval).rows()] - FIRST_KNOWN
            scored = matched[top(worth[FIRST_KNOWN + matched], sizes.qscore)]
            prerank_pctr = 1 / (1 + np.exp(-(stored.products(scored, query[0].numpy()) + offset.item())))
            near = scored[top(prerank_pctr * bids[scored], sizes.prerank)]
            shown = near[top(ecpm[near], TOP)]
            recalls = [len(np.intersect1d(best, kept)) / len(best) for kept in (matched, scored, near)]
            reachable = float(ecpm[best].sum())
            found.append([*recalls, 1 - float(ecpm[shown].sum()) / reachable if reachable > 0 else 0.0])
    mean = np.mean(found, axis=0)
    names = ("recall_after_retrieval", "recall_after_qscore", "recall_after_prerank", "ecpm_lost")
    return {f"funnel.{name}": float(value) for name, value in zip(names, mean, strict=True)} | {
        "funnel.requests": float(len(found)),
        "funnel.ads": float(len(bids)),
    }


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
