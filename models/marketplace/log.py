"""The simulated impression log, round by round.

Each round covers one stretch of time. No user has two requests in a round, so that all of its requests can be drawn at
once, and the clicks of a round enter the histories only when it is over: a history is what happened strictly before.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from models.marketplace.likes import Likes
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import Int64, World, ad_ids, user_ids

REQUESTS_A_ROUND = 20_000
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Round:
    """Requests of one stretch of time, in order of time: R requests of k shown ads."""

    first_request: int
    time_ms: Int64
    """[R], ascending"""
    users: Int64
    """[R] rows, all different"""
    scenes: Int64
    """[R]"""
    regions: Int64
    """[R], where the users are"""
    ads: Int64
    """[R, k] rows, shown at positions 0..k-1, all different within a request"""
    true_ctr: npt.NDArray[np.float32]
    """[R, k]"""
    clicks: npt.NDArray[np.bool_]
    """[R, k]"""
    true_like: npt.NDArray[np.float32] | None = None
    """[R, k]; None where there are no likes."""
    likes: npt.NDArray[np.bool_] | None = None
    """[R, k]; None where there are no likes."""

    def frame(self, spec: MarketplaceSpec) -> pl.DataFrame:
        """The log's rows, one an impression, with external ids."""
        requests, k = self.ads.shape
        regions = {"region": pl.Series(spec.regions).gather(np.repeat(self.regions, k))} if spec.targeted else {}
        liked = {}
        if self.likes is not None and self.true_like is not None:
            liked = {"like": self.likes.ravel().astype(np.int8), "true_like": self.true_like.ravel()}
        return pl.DataFrame(
            {
                "user_id": np.repeat(user_ids(self.users), k),
                "ad_id": ad_ids(self.ads).ravel(),
                "request_id": np.repeat(np.arange(self.first_request, self.first_request + requests), k),
                "time_ms": np.repeat(self.time_ms, k),
                "scene": pl.Series(spec.scenes).gather(np.repeat(self.scenes, k)),
                **regions,
                "position": np.tile(np.arange(k, dtype=np.int16), requests),
                "click": self.clicks.ravel().astype(np.int8),
                "true_ctr": self.true_ctr.ravel(),
                **liked,
            }
        )


def simulate(truth: Truth, histories: npt.NDArray[np.int32]) -> Iterator[Round]:
    """All rounds of the log. `histories` [users, L] is brought up to date in place after each round."""
    world, spec = truth.world, truth.world.spec
    random = np.random.default_rng([spec.seed, 5])
    likes = Likes(world) if spec.likes else None
    size = max(1, min(REQUESTS_A_ROUND, spec.users // 4))
    rounds = -(-spec.requests // size)
    borders = np.arange(rounds + 1) * spec.requests // rounds
    times = spec.start_ms + np.arange(rounds + 1) * (spec.days * DAY_MS) // rounds
    for i in range(rounds):
        requests = int(borders[i + 1] - borders[i])
        users = visitors(world, requests, random)
        scenes = random.integers(0, len(spec.scenes), requests)
        ads = _shown(world, users, scenes, i / rounds, random)
        positions = np.broadcast_to(np.arange(spec.candidates), ads.shape)
        ctr = truth.true_ctr(users, ads, scenes, positions, histories[users])
        clicks = random.random(ctr.shape, dtype=np.float32) < ctr
        when = np.sort(random.integers(times[i], times[i + 1], requests))
        liked = (None, None) if likes is None else likes.draw(users, ads, ctr, clicks)
        yield Round(int(borders[i]), when, users, scenes, world.regions(users), ads, ctr, clicks, *liked)
        remember(histories, users, ads, clicks)


def remember(histories: npt.NDArray[np.int32], users: Int64, ads: Int64, clicks: npt.NDArray[np.bool_]) -> None:
    """Append clicked ads to the histories, in place, by position: users [R] all different, ads and clicks [R, k]."""
    for position in range(ads.shape[1]):
        clicked = clicks[:, position]
        who = users[clicked]
        histories[who, :-1] = histories[who, 1:]
        histories[who, -1] = ads[clicked, position]


def visitors(world: World, n: int, random: np.random.Generator) -> Int64:
    """n different users, the active ones more often: those whose next visit, an exponential time, comes first."""
    next_visit = random.standard_exponential(world.spec.users, dtype=np.float32) / world.users.activity
    return np.argpartition(next_visit, n - 1)[:n].astype(np.int64)


def _shown(world: World, users: Int64, scenes: Int64, now: float, random: np.random.Generator) -> Int64:
    """The ads shown to each user when the share `now` of the log is over, [R, k], all different within a row and
    allowed where they are shown."""
    spec = world.spec
    shape = (len(users), spec.candidates)
    source = random.random(shape)
    ads = np.where(
        source < spec.shown_by_interest,
        world.draw_by_interest(users, spec.candidates, random),
        np.where(
            source < spec.shown_by_interest + spec.shown_by_popularity,
            world.draw_popular(shape, random),
            random.integers(0, spec.ads, shape),
        ),
    )
    while True:
        order = np.argsort(ads, axis=1, kind="stable")
        ordered = np.take_along_axis(ads, order, axis=1)
        row, place = np.nonzero(ordered[:, 1:] == ordered[:, :-1])
        column = order[row, place + 1]
        if world.targets is not None or world.launch is not None:
            elsewhere = ~(world.eligible(ads, users, scenes) & world.present(ads, now))
            elsewhere[row, column] = False
            further = np.nonzero(elsewhere)
            row, column = np.concatenate((row, further[0])), np.concatenate((column, further[1]))
        if not row.size:
            return ads
        # Ends soon: candidates are at most half of the ads that are for everywhere and there from the beginning, which
        # are all, or at least half, or at least a quarter.
        ads[row, column] = random.integers(0, spec.ads, row.size)
