"""Paired bootstrap of users: how far apart two models are on the same impressions, and how sure that is.

A user's impressions are no independent draws, so users are drawn, with replacement, with all of their impressions
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13). Every score vector sees the same
draws: what two models have in common leaves their difference.

    AUC under user weights c       Σ_i c_i · (Σ_j c_j [s_j < s_i] + ½ Σ_j c_j [s_j = s_i]) / (Σ_i c_i · Σ_j c_j)
                                   i clicks, j non-clicks: scores are sorted once, a draw costs one cumulative sum
    GAUC                           Σ_u c_u n_u auc_u / Σ_u c_u n_u, over users with both classes
    log loss                       Σ_u c_u loss_u / Σ_u c_u n_u
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.metrics import Float64, log_losses, user_aucs

METRICS = ("auc", "gauc", "logloss")
"""In the order of _Vector.under."""
REPLICATES = 1000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and where it lies with a probability of 95 %. NaN where it is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Replicates:
    """Metrics of S score vectors: as measured, and under each of R draws of users."""

    measured: dict[str, Float64]
    """Metric -> [S]."""
    drawn: dict[str, Float64]
    """Metric -> [R, S]."""

    def difference(self, metric: str, ours: Sequence[int], other: Sequence[int]) -> Interval:
        """Mean of the metric over score vectors `ours` minus its mean over `other` (several seeds of two models), with
        the percentile interval."""
        value = self.measured[metric][list(ours)].mean() - self.measured[metric][list(other)].mean()
        drawn = self.drawn[metric][:, list(ours)].mean(1) - self.drawn[metric][:, list(other)].mean(1)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(float(value), float(low), float(high))


def bootstrap(
    labels: npt.ArrayLike,
    users: npt.ArrayLike,
    scores: Sequence[npt.ArrayLike],
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Replicates:
    """Metrics of several score vectors under the same draws of users.

    `labels` [n] of 0 and 1, `users` [n], each of `scores` [n] probabilities. A draw without clicks, without non-clicks
    or without a user of both classes has NaN there. ValueError as in metrics, and without scores or replicates.
    """
    if not scores or replicates < 1:
        raise ValueError(f"{len(scores)} score vectors and {replicates} replicates, at least 1 of each is needed")
    found, user = np.unique(np.asarray(users), return_inverse=True)
    vectors = [_Vector.of(np.asarray(labels), user, each) for each in scores]
    size = np.bincount(user).astype(np.float64)
    drawn = np.empty((replicates, len(vectors), len(METRICS)))
    with np.errstate(invalid="ignore"):  # 0 / 0 of a draw without a class is the NaN promised
        for r, weights in enumerate(draws(len(found), replicates, seed)):
            for s, vector in enumerate(vectors):
                drawn[r, s] = vector.under(weights, size)
        measured = np.stack([vector.under(np.ones(len(found)), size) for vector in vectors])
    return Replicates(
        {metric: measured[:, i] for i, metric in enumerate(METRICS)},
        {metric: drawn[..., i] for i, metric in enumerate(METRICS)},
    )


def draws(users: int, replicates: int, seed: int) -> Iterator[Float64]:
    """How often each user occurs in a draw of as many users with replacement: [users], `replicates` times."""
    random = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(random.integers(0, users, users), minlength=users).astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Vector:
    """One score vector, with all that does not depend on the draw: P clicks, N non-clicks, U users."""

    clickers: npt.NDArray[np.intp]
    """[P]: user of each click, by rising score."""
    others: npt.NDArray[np.intp]
    """[N]: user of each non-click, by rising score."""
    below: npt.NDArray[np.intp]
    """[P]: non-clicks that score below a click."""
    upto: npt.NDArray[np.intp]
    """[P]: those that do not score above it."""
    aucs: Float64
    """[U]"""
    rows: Float64
    """[U]: impressions that a user's AUC stands for; 0 without both classes."""
    losses: Float64
    """[U]: sum over the user's impressions."""

    @staticmethod
    def of(labels: npt.NDArray[np.generic], user: npt.NDArray[np.intp], scores: npt.ArrayLike) -> "_Vector":
        each = user_aucs(labels, scores, user)
        losses: Float64 = np.bincount(user, weights=log_losses(labels, scores)).astype(np.float64)
        score = np.asarray(scores, dtype=np.float64)
        order = np.argsort(score, kind="stable")
        clicked = labels[order] == 1
        clicks, others = order[clicked], order[~clicked]
        return _Vector(
            clickers=user[clicks],
            others=user[others],
            below=np.searchsorted(score[others], score[clicks], side="left"),
            upto=np.searchsorted(score[others], score[clicks], side="right"),
            aucs=each.value,
            rows=each.rows.astype(np.float64),
            losses=losses,
        )

    def under(self, weights: Float64, size: Float64) -> Float64:
        """AUC, GAUC and log loss, [3], when user u counts `weights[u]` times; `size` [U]: impressions of each
        user."""
        lost = np.concatenate(([0.0], np.cumsum(weights[self.others])))
        clicks = weights[self.clickers]
        won = clicks @ (lost[self.below] + lost[self.upto]) / 2
        rows = weights * self.rows
        found = (won, rows @ self.aucs, weights @ self.losses)
        out_of = (clicks.sum() * lost[-1], rows.sum(), weights @ size)
        metrics: Float64 = np.array(found) / np.array(out_of)
        return metrics
