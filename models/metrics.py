"""How good a ranking of clicks is. Everything is vectorised: no loop over users, ties get their mid-rank.

`labels` are 0 or 1, `scores` any finite numbers (probabilities for log loss, calibration and ECE), both of shape [n].
ValueError names what cannot be used.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

FLOOR = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss: models write float32, which resolves 6e-8 below 1."""


@dataclass(frozen=True, slots=True)
class Gauc:
    """GAUC and what it was measured on."""

    value: float
    """NaN when no user has both classes."""
    users: int
    """Users with both classes."""
    rows: int
    """Impressions of those users."""


def auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often a click is scored above a non-click, ties counting half.

    ValueError when one of the two classes is missing.
    """
    clicked, score = _checked(labels, scores)
    positives = int(clicked.sum())
    negatives = clicked.size - positives
    if not positives or not negatives:
        raise ValueError(f"AUC needs clicks and non-clicks, there are {positives} and {negatives}")
    order = np.argsort(score)
    ranks = _mid_ranks(_starts(score[order]), score.size)
    won = float(ranks[clicked[order]].sum()) - positives * (positives + 1) / 2
    return won / (positives * negatives)


@dataclass(frozen=True, slots=True)
class UserAucs:
    """Each user's own AUC, users in the order of their sorted groups."""

    value: Float64
    """0 for users without both classes, whose `rows` are 0."""
    rows: npt.NDArray[np.int64]
    """Impressions of the users with both classes."""


def user_aucs(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike) -> UserAucs:
    """The AUC of each user's impressions. `groups`: any integers or strings, [n], that tell users apart; rows need not
    be sorted."""
    clicked, score = _checked(labels, scores)
    group: npt.NDArray[Any] = np.asarray(groups)
    if group.shape != clicked.shape:
        raise ValueError(f"groups have shape {list(group.shape)}, labels {list(clicked.shape)}")
    order = np.lexsort((score, group))
    clicked, score, group = clicked[order], score[order], group[order]
    first = _starts(group)
    size = np.diff(np.append(first, group.size))
    ranks = _mid_ranks(np.union1d(first, _starts(score)), score.size) - np.repeat(first, size)
    positives = np.add.reduceat(clicked, first, dtype=np.int64)
    won = np.add.reduceat(np.where(clicked, ranks, 0.0), first) - positives * (positives + 1) / 2
    pairs = positives * (size - positives)
    return UserAucs(won / np.maximum(pairs, 1), np.where(pairs > 0, size, 0))


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike) -> Gauc:
    """Impression-weighted mean of each user's own AUC, over the users with both classes (DIN, arXiv 1706.06978, 4.3).

    `groups` as in user_aucs.
    """
    each = user_aucs(labels, scores, groups)
    rows = int(each.rows.sum())
    value = float(each.value @ each.rows / rows) if rows else float("nan")
    return Gauc(value, int(np.count_nonzero(each.rows)), rows)


def log_loss(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean negative log likelihood, in nats."""
    return float(np.mean(log_losses(labels, scores)))


def log_losses(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Float64:
    """Each impression's negative log likelihood, in nats: [n]."""
    clicked, p = _probabilities(labels, scores)
    p = np.clip(p, FLOOR, 1.0 - FLOOR)
    return -np.log(np.where(clicked, p, 1.0 - p))


def calibration(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Predicted clicks over clicks: above 1 promises too much. ValueError without any click."""
    clicked, p = _probabilities(labels, scores)
    clicks = int(clicked.sum())
    if not clicks:
        raise ValueError(f"calibration needs a click, there is none in {clicked.size} impressions")
    return float(p.sum() / clicks)


def ece(labels: npt.ArrayLike, scores: npt.ArrayLike, bins: int = 20) -> float:
    """Expected calibration error: mean |predicted - clicked| over `bins` bins of equal mass, weighted by their rows.

    Equal scores share a bin (that of their mid-rank), so the result does not depend on the order of the rows.
    """
    clicked, p = _probabilities(labels, scores)
    if bins < 1:
        raise ValueError(f"bins is {bins}, at least 1 is needed")
    order = np.argsort(p)
    ranks = _mid_ranks(_starts(p[order]), p.size)
    into = ((ranks - 0.5) / p.size * bins).astype(np.int64)
    gaps = np.bincount(into, weights=p[order] - clicked[order], minlength=bins)
    return float(np.abs(gaps).sum() / p.size)


def summary(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike) -> dict[str, float]:
    """All of it: auc, gauc (NaN when no user has both classes), logloss, calibration, ece, impressions, users."""
    return {
        "auc": auc(labels, scores),
        "gauc": gauc(labels, scores, groups).value,
        "logloss": log_loss(labels, scores),
        "calibration": calibration(labels, scores),
        "ece": ece(labels, scores),
        "impressions": float(np.asarray(labels).size),
        "users": float(np.unique(np.asarray(groups)).size),
    }


def _checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Float64]:
    label, score = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"labels have shape {list(label.shape)}, scores {list(score.shape)}, both must be [n]")
    if not label.size:
        raise ValueError("there are no impressions to measure on")
    clicked: npt.NDArray[np.bool_] = label == 1
    if not np.all(clicked | (label == 0)):
        raise ValueError(f"labels must be 0 or 1, one is {label[~(clicked | (label == 0))][0]!r}")
    if not np.isfinite(score).all():
        raise ValueError(f"{int((~np.isfinite(score)).sum())} of {score.size} scores are not finite")
    return clicked, score


def _probabilities(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], Float64]:
    clicked, p = _checked(labels, scores)
    if p.min() < 0.0 or p.max() > 1.0:
        raise ValueError(f"scores must be probabilities, they range from {p.min():.6g} to {p.max():.6g}")
    return clicked, p


def _starts(values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where a sorted array takes a new value, the first place included."""
    return np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))


def _mid_ranks(starts: npt.NDArray[np.intp], n: int) -> Float64:
    """Ranks 1..n of a sorted array whose runs of equal values begin at `starts`: each run gets its mean rank."""
    ends = np.append(starts[1:], n)
    return np.repeat((starts + ends + 1) / 2.0, ends - starts)
