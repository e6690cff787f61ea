"""The simulated users after the log's end: they come, are shown what a service chose, and click by their true
probabilities."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.marketplace.log import remember, simulate, visitors
from models.marketplace.spec import MarketplaceSpec
from models.marketplace.truth import Truth
from models.marketplace.world import Int64, World, ad_rows, build_world, user_ids

Ask = dict[str, object]


@dataclass(frozen=True, slots=True)
class Visits:
    """V users who come at about the same time, all different."""

    users: Int64
    """[V] rows"""
    scenes: Int64
    """[V]"""
    regions: Int64
    """[V]"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What V users were shown, k ads at most, and what they did."""

    ads: Int64
    """[V, k] rows; -1 where fewer were shown"""
    true_ctr: npt.NDArray[np.float32]
    """[V, k]; 0 where nothing was shown"""
    clicks: npt.NDArray[np.bool_]
    """[V, k]"""


class Visitors:
    """Users of one simulated marketplace whose histories go on from where its log ended."""

    def __init__(self, spec: MarketplaceSpec, seed: int, drift: float = 0.0) -> None:
        """Rebuilds the world and its log: about a second for 100,000 requests. `seed`: of what comes after the log;
        `drift`: how far tastes have turned since (models/marketplace/truth.py)."""
        self.world: World = build_world(spec)
        self.truth = Truth(self.world)
        self.histories = self.world.first_histories()
        for _ in simulate(self.truth, self.histories):
            pass
        if drift:
            self.truth = Truth(self.world, drift)
        self._random = np.random.default_rng([spec.seed, 8, seed])

    def come(self, count: int) -> Visits:
        """`count` different users, the active ones more often, each in a scene. ValueError for more than there are."""
        spec = self.world.spec
        if not 1 <= count <= spec.users:
            raise ValueError(f"{count} different users were asked for, there are {spec.users}")
        users = visitors(self.world, count, self._random)
        scenes = self._random.integers(0, len(spec.scenes), count)
        return Visits(users, scenes, self.world.regions(users))

    def ask(self, visits: Visits, k: int) -> list[Ask]:
        """The body of a rank request of each visit."""
        spec = self.world.spec
        who = user_ids(visits.users).tolist()
        where = zip(visits.scenes.tolist(), visits.regions.tolist(), strict=True)
        contexts = [
            {"scene": spec.scenes[scene]} | ({"region": spec.regions[region]} if spec.targeted else {})
            for scene, region in where
        ]
        return [{"user_id": user, "context": context, "k": k} for user, context in zip(who, contexts, strict=True)]

    def see(self, visits: Visits, shown: list[list[int]]) -> Seen:
        """The ads with these ids are shown to each visit, in this order; clicks are drawn from the true probability and
        enter the histories. ValueError for an id that is no ad's."""
        ads = self._rows(shown)
        true = self._true(visits, ads)
        clicks = self._random.random(true.shape, dtype=np.float32) < true
        remember(self.histories, visits.users, np.where(ads >= 0, ads, 0), clicks)
        return Seen(ads, true, clicks)

    def true_ctr(self, visits: Visits, shown: list[list[int]]) -> npt.NDArray[np.float32]:
        """What `see` would draw clicks from, [V, k], 0 where nothing was shown; nobody sees anything."""
        return self._true(visits, self._rows(shown))

    def _rows(self, shown: list[list[int]]) -> Int64:
        ads = np.full((len(shown), max(map(len, shown), default=0)), -1, dtype=np.int64)
        for row, ids in enumerate(shown):
            ads[row, : len(ids)] = ad_rows(np.asarray(ids, dtype=np.int64))
        if ads.size and ads.max() >= self.world.spec.ads:
            row, place = np.argwhere(ads >= self.world.spec.ads)[0]
            raise ValueError(f"{shown[row][place]} was shown, which is no ad of this marketplace")
        return ads

    def _true(self, visits: Visits, ads: Int64) -> npt.NDArray[np.float32]:
        there = ads >= 0
        positions = np.broadcast_to(np.arange(ads.shape[1]), ads.shape)
        rows = np.where(there, ads, 0)
        true = self.truth.true_ctr(visits.users, rows, visits.scenes, positions, self.histories[visits.users])
        found: npt.NDArray[np.float32] = np.where(there, true, np.float32(0))
        return found
