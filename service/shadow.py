"""The shadow: some requests are ranked once more by another bundle, after their answer was sent, in spare time only.

Nothing of it reaches a caller. A request that was answered waits in a short queue until a lane is free and nobody waits
for a turn; what finds the queue full, or waits too long in it, is dropped and counted. So the shadow is the first to go
when load comes. What it cannot avoid: a request that arrives while the shadow ranks waits for at most that one run.
"""

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from service.ad_flags import AdFlags
from service.asks import ask_of
from service.budget import Budget
from service.cascade import rank, score
from service.checks import check_rank
from service.comparison import ScoreShift, ShadowOut, overlap, rank_correlation
from service.encode import known_rows, rows_of
from service.errors import InvalidRequestError
from service.metrics import Metrics
from service.plan import ShadowView
from service.runner import Runner
from service.schemas import RankedAd, RankRequest
from service.served_log import ServedLog, ShadowScores
from service.settings import Settings
from service.tasks import ended
from service.timing import RequestTiming
from service.user_features import UserFeatures

log = logging.getLogger("adrank.shadow")
PLACES = 4
"""Requests that wait. More would only be older when their turn comes."""
PAUSE_S = 0.01
"""Between looks for a free lane: 100 a second cost 0.2 % of a core."""
OLDEST_S = 1.0
"""Who waited longer is dropped: flags and records have moved on."""
PATIENCE_MS = 60_000
"""No stage of the shadow is left out."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered in full, and what was shown."""

    shadow: ShadowView
    request: RankRequest
    request_id: str
    user: UserFeatures
    ads: Sequence[RankedAd]
    ms: float
    """Of its stages."""
    at: float = field(default_factory=perf_counter)


class Tally:
    """What one shadow made of its requests, in this process."""

    def __init__(self) -> None:
        self.ranked = self.dropped = self.refused = self.failed = 0
        self.overlap = self.ms = self.shown_ms = 0.0
        self.correlation, self.correlated = 0.0, 0
        self.shift = ScoreShift()

    def out(self, shadow: ShadowView) -> ShadowOut:
        """For /v1/bundles."""

        def mean(total: float, count: int) -> float | None:
            return round(total / count, 4) if count else None

        return {
            "bundle_id": shadow.view.id,
            "share": shadow.share,
            "ranked": self.ranked,
            "dropped": self.dropped,
            "refused": self.refused,
            "failed": self.failed,
            "overlap": mean(self.overlap, self.ranked),
            "rank_correlation": mean(self.correlation, self.correlated),
            "psi": round(self.shift.psi, 4) if self.ranked else None,
            "ms": mean(self.ms, self.ranked),
            "live_ms": mean(self.shown_ms, self.ranked),
        }


class ShadowDesk:
    """Takes requests that were answered, and ranks them again when there is time. For one event loop."""

    def __init__(self, runner: Runner, flags: AdFlags, metrics: Metrics, settings: Settings, served: ServedLog) -> None:
        """`served`: where its scores are logged, for the day that clicks come."""
        self._runner, self._flags, self._metrics, self._settings = runner, flags, metrics, settings
        self._served = served
        self._queue: deque[Answered] = deque()
        self._come = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._of: tuple[str, Tally] = ("", Tally())

    def start(self) -> None:
        """Rank from now on."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Rank no longer; what waits is let go."""
        await ended(self._task)

    def offer(
        self,
        shadow: ShadowView,
        request: RankRequest,
        request_id: str,
        user: UserFeatures,
        ads: Sequence[RankedAd],
        timing: RequestTiming,
    ) -> None:
        """A request was answered by the control with `ads`. One that was degraded, or found no ad, says nothing of the
        bundles and is left out."""
        if timing.degraded or not ads or random.random() >= shadow.share:
            return
        if len(self._queue) >= PLACES:
            self._count(shadow, "dropped")
            return
        ms = sum(stage.ms for stage in timing.stages)
        self._queue.append(Answered(shadow, request, request_id, user, ads, ms))
        self._come.set()

    def out(self, shadow: ShadowView) -> ShadowOut:
        """What became of the requests of this shadow."""
        return self._tally(shadow).out(shadow)

    async def _follow(self) -> None:
        while True:
            await self._come.wait()
            while self._queue:
                await self._next(self._queue[0])
                self._queue.popleft()
            self._come.clear()

    async def _next(self, one: Answered) -> None:
        """Rank the oldest when there is time, or drop it."""
        scored: list[ShadowScores] = []
        try:
            # Of a bundle that was never asked for, they take a second for 10^6 flags: not on the event loop.
            await asyncio.to_thread(self._flags.of, one.shadow.view.bundle)
            while not await self._runner.spare(lambda: scored.append(self._rank(one))):
                if perf_counter() - one.at > OLDEST_S:
                    self._count(one.shadow, "dropped")
                    return
                await asyncio.sleep(PAUSE_S)
            if scored[0].ads:
                self._served.shadowed(one.request_id, str(one.request.user_id), scored[0])
        except InvalidRequestError as error:
            log.debug("the shadow %s does not take the request: %s", one.shadow.view.id, error)
            self._count(one.shadow, "refused")
        except Exception:  # or nobody would follow any more
            log.exception("the shadow %s: unexpected error", one.shadow.view.id)
            self._count(one.shadow, "failed")

    def _rank(self, one: Answered) -> ShadowScores:
        """The whole funnel, then the ads that were shown, scored by the shadow."""
        view, request = one.shadow.view, one.request
        check_rank(request, view.bundle, self._settings)
        timing = RequestTiming()
        flags = self._flags.of(view.bundle).passed
        k = request.k or self._settings.default_k
        # Not with the arrays that requests of this user share: those of another bundle would take their place.
        alone = UserFeatures(one.user.known, parsed=one.user.record)
        ask, _ = ask_of(view, request, alone, k, flags, timing)
        ranked = rank(view, ask, Budget(PATIENCE_MS), timing)
        ms = sum(stage.ms for stage in timing.stages)
        index = view.bundle.ads.index
        shown = [ad["ad_id"] for ad in one.ads]
        common = overlap(shown, [index.value_of(row) for row in ranked.rows.tolist()])
        rows = rows_of(index, shown)
        known = known_rows(rows)
        theirs, _ = score(view, ask.common, rows[known], Budget(PATIENCE_MS), RequestTiming())
        ours = np.array([np.nan if ad["pctr"] is None else ad["pctr"] for ad in one.ads])[known]
        tally = self._tally(one.shadow)
        correlation = rank_correlation(ours, theirs)
        tally.shift.add(ours, theirs)
        tally.overlap += common
        tally.ms += ms
        tally.shown_ms += one.ms
        if correlation is not None:
            tally.correlation += correlation
            tally.correlated += 1
        self._count(one.shadow, "ranked")
        self._metrics.compared(ms / 1e3, common, correlation, tally.shift.psi)
        ads = [ad for ad, is_known in zip(shown, known.tolist(), strict=True) if is_known]
        return ShadowScores(view.id, ads, [each if math.isfinite(each) else None for each in theirs.tolist()])

    def _count(self, shadow: ShadowView, outcome: str) -> None:
        tally = self._tally(shadow)
        setattr(tally, outcome, getattr(tally, outcome) + 1)
        self._metrics.shadowed(outcome)

    def _tally(self, shadow: ShadowView) -> Tally:
        """Begun anew with each other bundle."""
        if self._of[0] != shadow.view.id:
            self._of = (shadow.view.id, Tally())
        return self._of[1]
