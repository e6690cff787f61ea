"""One request's funnel: retrieval -> Qscore -> DQM pre-rank -> fine-rank -> auction. Synchronous, arrays only.

Every stage after retrieval keeps what it expects to be worth most, pCTR × bid, which is what the auction orders by.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bundle.bitmap import Bitmap, test
from bundle.cells import NOTHING
from bundle.golden import Common
from bundle.manifest import FinerankStage, PrerankStage, Rung
from service.budget import Budget
from service.ladder import LoadedRung
from service.loaded import LoadedBundle
from service.retrieval import NO_ROWS, Retrieved, retrieve, worthiest
from service.selection import Rows, best_first, count_non_finite, likelihood, sigmoid, top
from service.timing import RequestTiming

ScoredBy = Literal["finerank", "prerank", "qscore"]
Values = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What the cascade ranks for one request."""

    common: Common
    k: int
    own: Rows | None = None
    """Rows of the request's own candidates, distinct and ascending; retrieval is then left out."""
    note: str | None = None
    """What is to be said of the retrieval stage: how many ads are eligible, or what became of own candidates."""
    given: int = 0
    """How many own candidates were given."""
    allowed: Bitmap | None = None
    """The ads that may be shown; None: all."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The answer's ads, best first. All scores are of one stage."""

    rows: Rows
    pctr: npt.NDArray[np.float64]
    bids: npt.NDArray[np.float64]
    scored_by: ScoredBy


def rank(live: LoadedBundle, ask: Ask, budget: Budget, timing: RequestTiming) -> Ranked:
    """Run the funnel. A stage that is not expected to end within the budget is left out, with all that follow; the ads
    then stay in the order of the last stage that ran, and `timing` says so. Of the fine-rankers the best runs that load
    and budget allow."""
    bundle, ads, sizes, estimates = live.bundle, live.bundle.ads, live.sizes, live.estimates
    values: Values = dict(ask.common.feeds())
    query: Values | None = None

    if ask.own is not None:
        with timing.stage("retrieval", ask.given) as stage:
            found = Retrieved(NOTHING, ask.own if ask.allowed is None else ask.own[test(ask.allowed, ask.own)])
            stage.kept, stage.note = found.ads, ask.note
    elif budget.allows(estimates, "retrieval", live.rows):
        with timing.stage("retrieval", len(ads.index)) as stage:
            query = live.query.run(values)
            found = retrieve(bundle, query["query"], ask.common.histories, sizes.retrieval, ask.allowed)
            stage.kept, stage.note = found.ads, ask.note
        estimates.observe("retrieval", live.rows, stage.ms)
    else:
        found = Retrieved(bundle.cells.everything(ask.allowed), NO_ROWS)
        timing.skip("retrieval", len(ads.index), "deadline")
        timing.stages[-1].kept, timing.stages[-1].note = found.ads, ask.note

    with timing.stage("qscore", found.ads) as stage:
        rows = worthiest(bundle, found, sizes.qscore)
        scores: npt.NDArray[Any] = ads.qscores[rows]
        stage.kept = len(rows)
    scored_by: ScoredBy = "qscore"

    if not len(rows):
        timing.skip_empty("prerank", "finerank")
    elif budget.allows(estimates, "prerank", len(rows)):
        with timing.stage("prerank", len(rows)) as stage:
            query = query or live.query.run(values)
            scores = calibrated(bundle.manifest.stages.prerank, prerank(live, query, rows))
            timing.count("prerank", count_non_finite(scores))
            chosen = top(likelihood(scores) * weights(live, ads.bids[rows]), sizes.prerank)
            rows, scores = rows[chosen], scores[chosen]
            stage.kept = len(rows)
        estimates.observe("prerank", stage.seen, stage.ms)
        scored_by = "prerank"
    else:
        timing.skip("prerank", len(rows), "deadline")

    if len(rows) and (logits := finerank(live, values, rows, budget, timing)) is not None:
        scores, scored_by = logits, "finerank"
        timing.count("finerank", count_non_finite(scores))

    with timing.stage("auction", len(rows)) as stage:
        pctr = probabilities(scores, scored_by)
        bids = ads.bids[rows].astype(np.float64)
        order = auction(live, pctr, bids)[: min(ask.k, sizes.answer)]
        stage.kept = len(order)
    return Ranked(rows[order], pctr[order], bids[order], scored_by)


def auction(live: LoadedBundle, pctr: npt.NDArray[np.float64], bids: npt.NDArray[np.float64]) -> Rows:
    """Positions of the ads that may win, best first: by pCTR × bid^exponent. With a reserve, an ad whose value is less,
    or not known because its score is no finite number, may not."""
    order = best_first(pctr * weights(live, bids))
    if reserve := live.auction.reserve_ecpm:
        order = order[(pctr * bids)[order] >= reserve]
    return order


def weights(live: LoadedBundle, bids: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What the auction weighs an ad's pCTR with; the pre-ranker keeps what is worth most by the same measure."""
    exponent = live.auction.bid_exponent
    return bids if exponent == 1.0 else bids ** bids.dtype.type(exponent)


def score(
    live: LoadedBundle, common: Common, rows: Rows, budget: Budget, timing: RequestTiming
) -> tuple[npt.NDArray[np.float64], ScoredBy]:
    """pCTR of each row, in the given order, and the stage that gave all of them. Row 1 is scored as an unknown ad."""
    values: Values = dict(common.feeds())
    scores = finerank(live, values, rows, budget, timing)
    scored_by: ScoredBy = "finerank"
    if scores is None:
        with timing.stage("prerank", len(rows)):
            query = live.query.run(values)
            scores = calibrated(live.bundle.manifest.stages.prerank, prerank(live, query, rows))
        scored_by = "prerank"
    timing.count(scored_by, count_non_finite(scores))
    return probabilities(scores, scored_by), scored_by


def prerank(live: LoadedBundle, query: Values, rows: Rows) -> npt.NDArray[np.float32]:
    """Pre-rank logits float32[N] of the ads in `rows`."""
    logits: npt.NDArray[np.float32] = live.bundle.ads.vectors.products(rows, query["query"]) + query["offset"]
    return logits


def finerank(
    live: LoadedBundle, values: Values, rows: Rows, budget: Budget, timing: RequestTiming
) -> npt.NDArray[np.float32] | None:
    """Calibrated fine-rank logits float32[N] of the ads in `rows`, all of one rung; None when none was allowed."""
    chosen = live.ladder.choose(budget, live.estimates, len(rows))
    if chosen[0] is None:
        _, why = chosen
        timing.skip("finerank", len(rows), why)
        return None
    rung, reason = chosen
    with timing.stage("finerank", len(rows)) as stage:
        scores = calibrated(rung.stage, rung_logits(live, rung, values, rows))
        if (platt := live.platt) is not None:
            scores = np.float32(platt.slope) * scores + np.float32(platt.offset)
    live.estimates.observe(rung.key, stage.seen, stage.ms)
    timing.scored_by_rung(stage, rung.name, rung.key, reason)
    return scores


def rung_logits(live: LoadedBundle, rung: LoadedRung, values: Values, rows: Rows) -> npt.NDArray[np.float32]:
    """A rung's logits float32[N] of the ads in `rows`. The user's side enters once, the ads as [N, columns]."""
    ads = live.bundle.ads
    candidates: Values = {"ads": ads.fields[rows].astype(np.int64), "ad_numbers": ads.numbers[rows]}
    logits: npt.NDArray[np.float32] = rung.graph.run(values | candidates)["logits"]
    return logits


def calibrated(stage: PrerankStage | FinerankStage | Rung, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A stage's logits as its bundle corrects them."""
    return logits if stage.calibration is None else stage.calibration.of(logits).astype(np.float32)


def probabilities(scores: npt.NDArray[Any], scored_by: ScoredBy) -> npt.NDArray[np.float64]:
    """pCTR: Qscores are probabilities already, the other stages give logits. Non-finite scores become NaN."""
    if scored_by == "qscore":
        return np.where(np.isfinite(scores), scores, np.nan).astype(np.float64)
    return sigmoid(scores)
