"""Two rankings of the same impressions: AUC and GAUC of both, and how sure their difference is.

    AUC     how often a click is scored above an impression without one, ties counting half
    GAUC    mean of each user's own AUC, weighted by impressions, over users who have both (DIN, arXiv 1706.06978, 4.3)

Impressions of one user are no independent draws, so users are drawn: the paired bootstrap of clusters (Davison and
Hinkley, Bootstrap Methods and their Application, 1997, 2.4 and 3.8). Each replicate draws as many users as there are,
with replacement, each with all impressions, and takes the difference of both rankings on that draw; the interval lies
between the quantiles of those differences. It is meant for one look: who looks until it leaves 0 will see it do so.

Labels are bool[n], scores finite float64[n], users int64[n] from 0 without gaps.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

LEAST = 20
"""Users with a click and an impression without one that an interval needs: with fewer the quantiles of a bootstrap lie
too close together."""


@dataclass(frozen=True, slots=True)
class Change:
    """One measure of both rankings. NaN where the impressions do not say."""

    live: float
    other: float
    low: float
    high: float
    """Of other − live. NaN with fewer than LEAST users."""


@dataclass(frozen=True, slots=True)
class Rankings:
    """What two rankings of the same impressions are worth."""

    auc: Change
    gauc: Change
    users: int
    """Who have both a click and an impression without one."""
    rows: int
    """Their impressions."""


def auc(clicked: Bools, scores: Float64) -> float:
    """Of all impressions together; NaN without a click, or without an impression that was none."""
    return _Whole(clicked, scores, np.zeros(len(scores), dtype=np.int64)).under(np.ones(1))


def user_aucs(clicked: Bools, scores: Float64, users: Int64) -> tuple[Float64, Float64]:
    """Each user's own AUC and impressions, both [users]; 0 and 0 for users who lack clicks or impressions without."""
    order = np.lexsort((scores, users))
    hit, score, user = clicked[order], scores[order], users[order]
    size, clicks = np.bincount(user), np.bincount(user, weights=hit)
    starts = np.flatnonzero(np.append(True, (user[1:] != user[:-1]) | (score[1:] != score[:-1])))
    run = np.diff(np.append(starts, len(user)))
    ranks = np.repeat(starts + (run + 1) / 2, run) - (np.cumsum(size) - size)[user]  # within the user, ties their mean
    won = np.bincount(user, weights=ranks * hit) - clicks * (clicks + 1) / 2
    pairs = clicks * (size - clicks)
    return won / np.maximum(pairs, 1), np.where(pairs > 0, size, 0).astype(np.float64)


def compare(
    clicked: Bools, live: Float64, other: Float64, users: Int64, replicates: int = 1000, alpha: float = 0.05
) -> Rankings:
    """Both rankings, and intervals of their differences at the level 1 − `alpha`. The draws are the same at every call.
    ValueError without impressions."""
    if not len(clicked):
        raise ValueError("there are no impressions to compare rankings on")
    whole = [_Whole(clicked, scores, users) for scores in (live, other)]
    (mine, rows), (theirs, _) = (user_aucs(clicked, scores, users) for scores in (live, other))
    there = len(rows)
    once = np.ones(there)
    informative = int(np.count_nonzero(rows))
    auc_draws, gauc_draws = np.empty(replicates), np.empty(replicates)
    draw = np.random.default_rng(0)
    known = range(replicates) if informative >= LEAST else range(0)
    for i in known:
        counts = np.bincount(draw.integers(there, size=there), minlength=there).astype(np.float64)
        auc_draws[i] = whole[1].under(counts) - whole[0].under(counts)
        gauc_draws[i] = _mean(theirs - mine, rows * counts)
    return Rankings(
        _change(whole[0].under(once), whole[1].under(once), auc_draws[: len(known)], alpha),
        _change(_mean(mine, rows), _mean(theirs, rows), gauc_draws[: len(known)], alpha),
        informative,
        int(rows.sum()),
    )


class _Whole:
    """The AUC of all impressions, for users who count several times."""

    def __init__(self, clicked: Bools, scores: Float64, users: Int64) -> None:
        values, place = np.unique(scores, return_inverse=True)
        self._values = len(values)
        self._of = [(place[rows], users[rows]) for rows in (clicked, ~clicked)]

    def under(self, counts: Float64) -> float:
        """With each user's impressions so many times: counts [users]."""
        hits, misses = (np.bincount(place, counts[user], self._values) for place, user in self._of)
        pairs = hits.sum() * misses.sum()
        return float(hits @ (np.cumsum(misses) - misses / 2) / pairs) if pairs else float("nan")


def _mean(values: Float64, weights: Float64) -> float:
    total = weights.sum()
    return float(values @ weights / total) if total else float("nan")


def _change(live: float, other: float, draws: Float64, alpha: float) -> Change:
    sure = draws[np.isfinite(draws)]  # a draw of users none of whom has both says nothing
    if not len(sure):
        return Change(live, other, float("nan"), float("nan"))
    low, high = np.quantile(sure, [alpha / 2, 1 - alpha / 2])
    return Change(live, other, float(low), float(high))
