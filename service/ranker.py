"""The only async orchestration of a request: user features, then the cascade in one piece, when it is its turn."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter, time
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from service.ad_flags import AdFlags
from service.asks import Own, ask_of
from service.budget import Budget
from service.cascade import Ranked, ScoredBy, rank, score
from service.checks import check_rank, check_score
from service.encode import encode_found, known_rows, needs_store, rows_of
from service.ladder import turn_of
from service.loaded import LoadedBundle
from service.plan import Plan, Served
from service.registry import Registry
from service.runner import Runner
from service.schemas import (
    Given,
    RankedAd,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    StageOut,
)
from service.served_log import Inputs
from service.settings import Settings
from service.shadow import ShadowDesk
from service.timing import RequestTiming, StageTime
from service.user_features import UserFeatures, UserReader

T = TypeVar("T")
User = Literal["known", "unknown", "given"]


@dataclass(frozen=True, slots=True)
class Ranker:
    """Answers rank and score requests from the live plan."""

    registry: Registry
    users: UserReader
    flags: AdFlags
    runner: Runner
    settings: Settings
    shadow: ShadowDesk

    async def rank(
        self, request: RankRequest, request_id: str, timing: RequestTiming, forced: Mapping[str, str] | None = None
    ) -> RankResponse:
        """The ads to show, best first. `forced`: arms that the user is in whatever the hash says. InvalidRequestError
        for what the bundle does not offer."""
        plan = self.registry.plan
        served = _served(plan, request.user_id, forced, timing)
        live = served.live
        check_rank(request, live.bundle, self.settings)
        inputs = timing.inputs = Inputs(live, served.version, served.dealt, served.overrides)
        budget = self._budget(request.deadline_ms, timing)
        found, user = await self._user(live, request.user_id, request.user, budget, timing)
        inputs.stored = found.stored

        if (why := self.flags.degraded) is not None:
            timing.degraded.append(why)

        def work() -> tuple[Ranked, Own]:
            inputs.flags = self.flags.of(live.bundle)
            k = request.k or self.settings.default_k
            ask, own = ask_of(live, request, found, k, inputs.flags.passed, timing)
            return rank(live, ask, budget, timing), own

        ranked, own = await self._run(work, live, budget, timing)
        _finish(live, user, timing)
        ads = ads_of(live, ranked)
        if plan.shadow is not None and live is plan.control:
            self.shadow.offer(plan.shadow, request, request_id, found, ads, timing)
        return {
            "request_id": request_id,
            "version": served.version,
            "arms": served.arms,
            "bundle_id": live.id,
            "user": user,
            "scored_by": ranked.scored_by,
            "rung": timing.rung,
            "ads": ads,
            "stages": [_stage(stage) for stage in timing.stages],
            "degraded": timing.degraded,
            "unknown_candidates": own.unknown,
            "excluded_candidates": own.excluded,
            "features_ms": round(timing.waits.get("features", 0.0), 3),
            "queue_ms": round(timing.waits.get("queue", 0.0), 3),
            "total_ms": round(timing.total_ms, 3),
        }

    async def score(
        self, request: ScoreRequest, request_id: str, timing: RequestTiming, forced: Mapping[str, str] | None = None
    ) -> ScoreResponse:
        """A score for each ad, in the given order; `forced` as above. InvalidRequestError for what the bundle does not
        offer."""
        served = _served(self.registry.plan, request.user_id, forced, timing)
        live = served.live
        check_score(request, live.bundle, self.settings)
        budget = self._budget(request.deadline_ms, timing)
        found, user = await self._user(live, request.user_id, request.user, budget, timing)

        def work() -> tuple[list[float | None], list[int | str], ScoredBy]:
            common = encode_found(live.bundle, request.user_id, found, request.user, request.context)
            rows = rows_of(live.bundle.ads.index, request.ads)
            pctr, scored_by = score(live, common, rows, budget, timing)
            unknown = [request.ads[i] for i in np.flatnonzero(~known_rows(rows))]
            return _finite(pctr), list(dict.fromkeys(unknown)), scored_by

        pctr, unknown, scored_by = await self._run(work, live, budget, timing)
        _finish(live, user, timing)
        return {
            "request_id": request_id,
            "version": served.version,
            "arms": served.arms,
            "bundle_id": live.id,
            "user": user,
            "scored_by": scored_by,
            "rung": timing.rung,
            "pctr": pctr,
            "unknown_ads": unknown,
            "degraded": timing.degraded,
            "features_ms": round(timing.waits.get("features", 0.0), 3),
            "queue_ms": round(timing.waits.get("queue", 0.0), 3),
            "total_ms": round(timing.total_ms, 3),
        }

    def _budget(self, deadline_ms: int | None, timing: RequestTiming) -> Budget:
        return Budget(deadline_ms or self.settings.default_deadline_ms, timing.started)

    async def _user(
        self, live: LoadedBundle, user_id: int | str, given: Given | None, budget: Budget, timing: RequestTiming
    ) -> tuple[UserFeatures, User]:
        if not needs_store(live.bundle, given):
            return UserFeatures(), "given"
        with timing.wait("features"):
            found = await self.users.read(str(user_id), budget.remaining_ms / 1e3)
        if found.degraded is not None:
            timing.degraded.append(found.degraded)
        if given is not None:
            return found, "given"
        return found, "known" if found.known else "unknown"

    async def _run(self, work: Callable[[], T], live: LoadedBundle, budget: Budget, timing: RequestTiming) -> T:
        """Run `work` when it is its turn, on the rung that those waiting behind it allow."""
        submitted = perf_counter()

        def timed() -> T:
            begun = perf_counter()
            timing.waits["queue"] = (begun - submitted) * 1e3
            runner, estimates = self.runner, live.estimates
            step = live.ladder.judge(runner.waiting, runner.turns, runner.lanes, budget.deadline_ms, estimates)
            budget.step = timing.ladder_step = step
            found = work()
            if timing.rung is not None:
                estimates.observe(turn_of(timing.rung), 1, (perf_counter() - begun) * 1e3)
            return found

        return await self.runner.run(timed)


def _served(plan: Plan, user_id: int | str, forced: Mapping[str, str] | None, timing: RequestTiming) -> Served:
    """What the user gets. Ids are hashed as text, as the feature store has them: 7 and "7" are one user."""
    served = plan.of(str(user_id), time(), forced)
    timing.version, timing.arms, timing.dealt = served.version, served.arms, served.dealt
    return served


def ads_of(live: LoadedBundle, ranked: Ranked) -> list[RankedAd]:
    """The answer's ads. Bids are stored as float32 and written as such: 9.05, not 9.050000190734863."""
    index = live.bundle.ads.index
    pctr, ecpm = _finite(ranked.pctr), _finite(ranked.pctr * ranked.bids)
    bids = [float(str(bid)) for bid in ranked.bids.astype(np.float32)]
    return [
        {"ad_id": index.value_of(row), "position": i + 1, "pctr": pctr[i], "bid": bids[i], "ecpm": ecpm[i]}
        for i, row in enumerate(ranked.rows.tolist())
    ]


def _finite(values: npt.NDArray[np.float64]) -> list[float | None]:
    if np.isnan(values).any():
        return [None if math.isnan(value) else value for value in values.tolist()]
    found: list[float | None] = values.tolist()
    return found


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
