"""Whether a turn's networks may be served: held against what is served on the newest impressions of the turn's log.

Nothing of these was trained on or calibrated with, by either of the two; they are the test split, the last tenth by
time. Both networks score as they are, or would be, served, calibration included; the new one compressed, the served one
before its compression, so that what a recipe loses counts against the new one. The difference has the paired interval
of users drawn with replacement (models/intervals.py), which is of one look, and each turn is one.

    held        the whole interval lies within the limits: AUC above -auc_drop, log loss below logloss_rise
    worse       refused: the AUC's interval lies below 0, or that of the log loss above 0, and beyond a limit
    not told    refused: part of the interval lies beyond a limit, or there are too few users for an interval
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from bundle.calibration import Calibration
from bundle.schema import Frozen
from export.renewal import Stock, carried
from models.calibration import calibrated
from models.checkpoint import Checkpoint
from models.data.prepared import PreparedData
from models.evaluation import Scored, network_scorer, score_split
from models.intervals import METRICS, Interval, bootstrap
from models.labels import labelled
from models.metrics import gauc
from models.networks.network import Network

SPLIT = "test"
Word = Literal["held", "worse", "not told"]


class Limits(Frozen):
    """How much worse than what is served a network may be, for certain."""

    auc_drop: float = Field(default=0.02, ge=0, le=1)
    """3,000 impressions tell AUCs of 0.65 about 0.01 apart: an unchanged network is held."""
    logloss_rise: float = Field(default=0.02, ge=0)
    """In nats: about what pCTRs that are a third too high or too low cost at a CTR of 30 %."""
    min_users: int = Field(default=20, ge=1)
    """With both a click and an impression without one: with fewer a bootstrap's quantiles lie too close together."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was said of one network."""

    word: Word
    why: str
    """With numbers and limits; empty when held."""
    before: dict[str, float]
    after: dict[str, float]
    differences: dict[str, Interval]
    """By metric; none with too few users."""
    impressions: int
    users: int
    """Who clicked and did not."""

    def figures(self, name: str) -> dict[str, float | str]:
        """Flat figures, judge.NAME.*"""
        found: dict[str, float | str] = {"word": self.word, "impressions": self.impressions, "users": self.users}
        for metric, each in self.differences.items():
            found |= {f"{metric}.before": self.before[metric], f"{metric}.after": self.after[metric]}
            found |= {metric: each.value, f"{metric}.low": each.low, f"{metric}.high": each.high}
        return {f"judge.{name}.{key}": value for key, value in found.items()}


def judged(stock: Stock, made: dict[str, Checkpoint], data: PreparedData, limits: Limits) -> dict[str, Judgement]:
    """`finerank` and `prerank` of a turn against those that are served. `made`: both as they would be served."""
    stages = stock.bundle.manifest.stages
    served = {
        "finerank": (stock.finerank, stages.finerank.calibration),
        "prerank": (stock.prerank, stages.prerank.calibration),
    }
    return {name: compared(*each, made[name], data, limits) for name, each in served.items()}


def compared(
    earlier: Checkpoint, calibration: Calibration | None, made: Checkpoint, data: PreparedData, limits: Limits
) -> Judgement:
    """One network against the one that it went on from, which is served with `calibration`."""
    rows = labelled(earlier.config, data)
    before = _scored(carried(earlier, rows), calibration, rows)
    return judge(before, _scored(made.network(), made.calibration(), rows), limits)


def judge(before: Scored, after: Scored, limits: Limits) -> Judgement:
    """Two networks on the same impressions."""
    labels, users = before.labels, before.users
    informative = gauc(labels, before.scores, users).users
    if (least := limits.min_users) > informative:
        why = f"{informative} users of the {len(labels):,} newest impressions clicked and did not, {least} are needed"
        return Judgement("not told", why, {}, {}, {}, len(labels), informative)
    drawn = bootstrap(labels, users, [before.scores, after.scores])
    differences = {metric: drawn.difference(metric, [1], [0]) for metric in METRICS}
    was, now = ({metric: float(drawn.measured[metric][i]) for metric in METRICS} for i in (0, 1))
    word, why = verdict(differences["auc"], differences["logloss"], limits)
    return Judgement(word, why, was, now, differences, len(labels), informative)


def verdict(auc: Interval, logloss: Interval, limits: Limits) -> tuple[Word, str]:
    """The word, and why. An interval with a NaN is within no limit."""
    said, words = [], []
    if not auc.low >= -limits.auc_drop:
        words.append(auc.high < 0)
        said.append(f"AUC {shown(auc)}, limit {-limits.auc_drop:+.4g}")
    if not logloss.high <= limits.logloss_rise:
        words.append(logloss.low > 0)
        said.append(f"log loss {shown(logloss)}, limit {limits.logloss_rise:+.4g}")
    if not said:
        return "held", ""
    return "worse" if any(words) else "not told", "; ".join(said)


def shown(difference: Interval) -> str:
    """Value and interval."""
    return f"{difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _scored(network: Network, calibration: Calibration | None, data: PreparedData) -> Scored:
    found = score_split(network_scorer(network), data, SPLIT)
    if calibration is None:
        return found
    corrected = calibrated(calibration, found.scores).astype(np.float32)
    return Scored(found.labels, found.users, found.rows, found.truth, corrected)
