"""The only async orchestration of a request: user features, then one hop to a worker thread that runs the cascade."""

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from bundle.record import UserRecord
from service.budget import Budget
from service.cascade import Ask, Ranked, ScoredBy, rank, score
from service.checks import check_rank, check_score
from service.encode import encode_common, known_rows, needs_store, rows_of
from service.registry import LoadedBundle, Registry
from service.retrieval import allowed_by
from service.schemas import Given, RankedAd, RankRequest, RankResponse, ScoreRequest, ScoreResponse, StageOut
from service.settings import Settings
from service.timing import RequestTiming, StageTime
from service.user_features import NOBODY, UserReader

T = TypeVar("T")
User = Literal["known", "unknown", "given"]


@dataclass(frozen=True, slots=True)
class Ranker:
    """Answers rank and score requests from the live bundle."""

    registry: Registry
    users: UserReader
    executor: Executor
    settings: Settings

    async def rank(self, request: RankRequest, request_id: str, timing: RequestTiming) -> RankResponse:
        """The ads to show, best first. InvalidRequestError for what the bundle does not offer."""
        live = self.registry.live
        check_rank(request, live.bundle, self.settings)
        budget = self._budget(request.deadline_ms, timing)
        record, user = await self._user(live, request.user_id, request.user, budget, timing)

        def work() -> tuple[Ranked, list[int | str]]:
            ask, unknown = _ask(live, request, record, request.k or self.settings.default_k)
            return rank(live, ask, budget, timing), unknown

        ranked, unknown = await self._in_thread(work, timing)
        _finish(live, user, timing)
        return {
            "request_id": request_id,
            "bundle_id": live.id,
            "user": user,
            "scored_by": ranked.scored_by,
            "ads": _ads(live, ranked),
            "stages": [_stage(stage) for stage in timing.stages],
            "degraded": timing.degraded,
            "unknown_candidates": unknown,
            "features_ms": round(timing.waits.get("features", 0.0), 3),
            "queue_ms": round(timing.waits.get("queue", 0.0), 3),
            "total_ms": round(timing.total_ms, 3),
        }

    async def score(self, request: ScoreRequest, request_id: str, timing: RequestTiming) -> ScoreResponse:
        """A score for each ad, in the given order. InvalidRequestError for what the bundle does not offer."""
        live = self.registry.live
        check_score(request, live.bundle, self.settings)
        budget = self._budget(request.deadline_ms, timing)
        record, user = await self._user(live, request.user_id, request.user, budget, timing)

        def work() -> tuple[list[float | None], list[bool], ScoredBy]:
            common = encode_common(live.bundle, request.user_id, record, request.user, request.context)
            rows = rows_of(live.bundle.ads.index, request.ads)
            pctr, scored_by = score(live, common, rows, budget, timing)
            return _finite(pctr), known_rows(rows).tolist(), scored_by

        pctr, known, scored_by = await self._in_thread(work, timing)
        _finish(live, user, timing)
        return {
            "request_id": request_id,
            "bundle_id": live.id,
            "user": user,
            "scored_by": scored_by,
            "scores": [{"ad_id": ad, "pctr": p, "known": k} for ad, p, k in zip(request.ads, pctr, known, strict=True)],
            "degraded": timing.degraded,
            "features_ms": round(timing.waits.get("features", 0.0), 3),
            "queue_ms": round(timing.waits.get("queue", 0.0), 3),
            "total_ms": round(timing.total_ms, 3),
        }

    def _budget(self, deadline_ms: int | None, timing: RequestTiming) -> Budget:
        return Budget(deadline_ms or self.settings.default_deadline_ms, timing.started)

    async def _user(
        self, live: LoadedBundle, user_id: int | str, given: Given | None, budget: Budget, timing: RequestTiming
    ) -> tuple[UserRecord, User]:
        if not needs_store(live.bundle, given):
            return NOBODY, "given"
        with timing.wait("features"):
            found = await self.users.read(str(user_id), budget.remaining_ms / 1e3)
        if found.degraded is not None:
            timing.degraded.append(found.degraded)
        if given is not None:
            return found.record, "given"
        return found.record, "known" if found.known else "unknown"

    async def _in_thread(self, work: Callable[[], T], timing: RequestTiming) -> T:
        """Run `work` in a worker thread, the only hop of a request."""
        submitted = perf_counter()

        def timed() -> T:
            timing.waits["queue"] = (perf_counter() - submitted) * 1e3
            return work()

        return await asyncio.get_running_loop().run_in_executor(self.executor, timed)


def _ask(live: LoadedBundle, request: RankRequest, record: UserRecord, k: int) -> tuple[Ask, list[int | str]]:
    """The arrays of a rank request, and its own candidates that are not in the catalogue."""
    bundle = live.bundle
    common = encode_common(bundle, request.user_id, record, request.user, request.context)
    asked = {
        field: (True, condition.any_of) if condition.any_of is not None else (False, condition.none_of or [])
        for field, condition in request.filters.items()
    }
    allowed = allowed_by(bundle.filters, asked, live.rows)
    if request.candidates is None:
        return Ask(common, k, allowed=allowed), []
    rows = rows_of(bundle.ads.index, request.candidates)
    known = known_rows(rows)
    unknown = [request.candidates[i] for i in np.flatnonzero(~known)]
    own = np.unique(rows[known])
    note = f"own candidates: {len(unknown)} unknown, {int(known.sum()) - len(own)} repeated"
    return Ask(common, k, own, note, len(rows), allowed), unknown


def _ads(live: LoadedBundle, ranked: Ranked) -> list[RankedAd]:
    """The answer's ads. Bids are stored as float32 and written as such: 9.05, not 9.050000190734863."""
    index = live.bundle.ads.index
    pctr, ecpm = _finite(ranked.pctr), _finite(ranked.pctr * ranked.bids)
    bids = [float(str(bid)) for bid in ranked.bids.astype(np.float32)]
    return [
        {"ad_id": index.value_of(row), "position": i + 1, "pctr": pctr[i], "bid": bids[i], "ecpm": ecpm[i]}
        for i, row in enumerate(ranked.rows.tolist())
    ]


def _finite(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _stage(stage: StageTime) -> StageOut:
    return {
        "name": stage.name,
        "in": stage.seen,
        "out": stage.kept,
        "ms": round(stage.ms, 3),
        "degraded": stage.degraded,
        "note": stage.note,
    }


def _finish(live: LoadedBundle, user: User, timing: RequestTiming) -> None:
    timing.bundle_id, timing.user = live.id, user
