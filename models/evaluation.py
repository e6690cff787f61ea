"""A model's scores on one split, and what they are worth."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.data.batches import Batch, batches
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.metrics import auc, summary

BATCH = 1024
"""Impressions scored at once. At 4,096 the tensors of DIN's attention pass malloc's limit of 32 MB for reusing memory,
and page faults took nearly as long as the arithmetic (KuaiRand's 151,152 rows: 28 s instead of 16 s)."""

Scorer = Callable[[Batch], npt.NDArray[np.float32]]
"""A batch -> click probability of each candidate, float32[M]."""


def network_scorer(network: nn.Module) -> Scorer:
    """Probabilities of a network; it is put in evaluation mode."""
    network.eval()

    def score(batch: Batch) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            probabilities: npt.NDArray[np.float32] = torch.sigmoid(network(batch)).numpy()
        return probabilities

    return score


def table_scorer(scores: npt.NDArray[np.float32]) -> Scorer:
    """The static score of each candidate's catalogue row."""
    return lambda batch: scores[batch.rows]


@dataclass(frozen=True, slots=True)
class Scored:
    """A split's impressions, in the order of the prepared data, and a model's probability of each: arrays of [n]."""

    labels: npt.NDArray[np.float32]
    users: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    """Catalogue rows of the ads."""
    truth: npt.NDArray[np.float32] | None
    """True click probabilities, simulated data only."""
    scores: npt.NDArray[np.float32]


def score_split(score: Scorer, data: PreparedData, split: str, batch_size: int = BATCH) -> Scored:
    """Score every impression of a split."""
    scores, labels, users, rows, truth = [], [], [], [], []
    for batch in batches(data, split, batch_size):
        scores.append(score(batch))
        labels.append(batch.labels.numpy())
        users.append(batch.users)
        rows.append(batch.rows)
        if batch.truth is not None:
            truth.append(batch.truth)
    known = np.concatenate(truth) if truth else None
    return Scored(np.concatenate(labels), np.concatenate(users), np.concatenate(rows), known, np.concatenate(scores))


def evaluate(score: Scorer, data: PreparedData, split: str, batch_size: int = BATCH) -> dict[str, float]:
    """Metrics of one split: see metrics.summary. Simulated data adds `best_auc`, the AUC of the true probability.

    DataError when the split cannot be measured: it has one class only, or a score is not finite.
    """
    found = score_split(score, data, split, batch_size)
    try:
        result = summary(found.labels, found.scores, found.users)
    except ValueError as error:
        raise DataError(f"{data.folder}, split {split!r}: {error}") from error
    return result if found.truth is None else result | {"best_auc": auc(found.labels, found.truth)}
