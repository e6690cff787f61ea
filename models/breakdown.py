"""A split in parts: how good a model is for each value of a context field."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from models.data.batches import batches
from models.data.context_values import context_field, name_of, vocabulary_of
from models.data.prepared import PreparedData
from models.data.spec import DataError
from models.evaluation import BATCH, Scorer
from models.metrics import auc, gauc, log_loss

Figures = dict[str, float]
COLUMNS = ("impressions", "click_rate", "auc", "gauc", "logloss")


def by_value(score: Scorer, data: PreparedData, split: str, field: str, size: int = BATCH) -> dict[str, Figures]:
    """Figures of each value of a categorical context field that the split has, the value with most impressions first:
    auc, gauc (NaN where there are no two classes), logloss, click_rate and impressions.

    `size`: impressions scored at once. DataError when there is no such field, or a score is not finite.
    """
    spec, column = context_field(data, field)
    vocabulary = vocabulary_of(data, spec)
    scores, labels, users, ids = [], [], [], []
    for batch in batches(data, split, size):
        scores.append(score(batch))
        labels.append(batch.labels.numpy())
        users.append(batch.users)
        ids.append(batch.context[batch.request, column].numpy())
    p, y, user, value = (np.concatenate(each) for each in (scores, labels, users, ids))
    distinct, counts = np.unique(value, return_counts=True)
    found: dict[str, Figures] = {}
    for each in distinct[np.argsort(-counts, kind="stable")]:
        mine = value == each
        try:
            found[name_of(vocabulary, int(each))] = figures(y[mine], p[mine], user[mine])
        except ValueError as error:
            raise DataError(
                f"{data.folder}, split {split!r}, {field} {name_of(vocabulary, int(each))!r}: {error}"
            ) from error
    return found


def figures(labels: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], users: npt.NDArray[np.int64]) -> Figures:
    """Of the impressions of one value."""
    both = 0 < labels.sum() < len(labels)
    return {
        "auc": auc(labels, scores) if both else float("nan"),
        "gauc": gauc(labels, scores, users).value,
        "logloss": log_loss(labels, scores),
        "click_rate": float(labels.mean()),
        "impressions": float(len(labels)),
    }


def table(field: str, found: Mapping[str, Figures]) -> str:
    """A line for each value."""
    width = max(len(field), *map(len, found))
    lines = ["  " + field.ljust(width) + "".join(name.rjust(13) for name in COLUMNS)]
    for value, of_it in found.items():
        numbers = [f"{of_it[name]:13.4f}" if math.isfinite(of_it[name]) else "undefined".rjust(13) for name in COLUMNS]
        numbers[0] = f"{of_it['impressions']:13,.0f}"
        lines.append(f"  {value.ljust(width)}{''.join(numbers)}")
    return "\n".join(lines)
