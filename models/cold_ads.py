"""A split in parts: how good a model is for ads that training showed never, seldom or often."""

import numpy as np
import numpy.typing as npt

from models.breakdown import Figures, figures
from models.data.batches import batches
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.evaluation import BATCH, Scorer, score_split

GROUPS = ("never", "1-9", "10-99", "100+")
"""Training impressions of an ad."""
FROM = (0, 1, 10, 100)


def shown_in_training(data: PreparedData) -> npt.NDArray[np.int64]:
    """Training impressions of every catalogue row, int64[rows]."""
    counts = np.zeros(len(data.ads.fields), dtype=np.int64)
    for batch in batches(data, "train", 65_536):
        counts += np.bincount(batch.rows, minlength=len(counts))
    return counts


def groups_of(impressions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The index in GROUPS of ads with so many training impressions, in the same shape."""
    return np.searchsorted(FROM, impressions, side="right") - 1


def by_exposure(score: Scorer, data: PreparedData, split: str, size: int = BATCH) -> dict[str, Figures]:
    """Figures, as models/breakdown.py has them, of the impressions of each group of ads that the split has.

    `size`: impressions scored at once. DataError when a score is not finite.
    """
    scored = score_split(score, data, split, size)
    group = groups_of(shown_in_training(data))[scored.rows]
    found: dict[str, Figures] = {}
    for index, name in enumerate(GROUPS):
        mine = group == index
        if not mine.any():
            continue
        try:
            found[name] = figures(scored.labels[mine], scored.scores[mine], scored.users[mine])
        except ValueError as error:
            raise DataError(f"{data.folder}, split {split!r}, ads shown {name} in training: {error}") from error
    return found
