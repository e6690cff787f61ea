"""The true click probability of the simulated marketplace.

It depends only on what a model may see: the user's profile, the user's last `history_length` behaviours, the ad, the
scene and the position. With recency weights r = 2 ** (-age / half_life), age 0 being the newest behaviour,

    logit = bias + quality · q[ad] + appeal[ad] + B[brand] + C[category] + A[age, category] + G[gender, category]
          + city[city] − price_gap · |spending − price| + S[scene] + SC[scene, category] − position · ln(1 + position)
          + interest · (1 − exp(−Σ r · [same category] / interest_scale))
          + loyalty  · (1 − exp(−Σ r · [same brand]    / loyalty_scale))
          − fatigue  · [same ad in the history]
          + style    · Σ r · ⟨style[ad], style[behaviour]⟩ / Σ r                         (where ads have images)

where B, C, A, G, S, SC and city are tables of centred normal numbers with the spreads that `Effects` names. No model
can rank the simulated clicks better than this probability does: its AUC is the best possible one.

Tastes drift by turning each of these tables towards another one of the same spread,

    T(drift) = cos(drift · π / 2) · T + sin(drift · π / 2) · T'

so that how much tables move clicks stays the same: 0 is the log's world, at 1 nothing is left of its tables. What
behaviours, quality and prices do stays.
"""

import numpy as np
import numpy.typing as npt

from models.marketplace.spec import AGE_BANDS, GENDERS
from models.marketplace.world import Float32, Rows, World

CELLS = 1 << 22
"""Candidate × behaviour pairs compared at once: 4 million take about 50 MB."""


class Truth:
    """The true click probabilities of one simulated world."""

    def __init__(self, world: World, drift: float = 0.0) -> None:
        """`drift`: how far tastes have turned since the log, in quarter turns."""
        spec, effects = world.spec, world.spec.effects
        random, later = (np.random.default_rng([spec.seed, stream]) for stream in (4, 9))
        angle = drift * np.pi / 2

        def table(spread: float, *shape: int) -> Float32:
            drawn = random.standard_normal(shape)
            if drift:
                drawn = np.cos(angle) * drawn + np.sin(angle) * later.standard_normal(shape)
            return np.asarray(spread * (drawn - drawn.mean()), dtype=np.float32)

        self.world = world
        self._ad = _ad_part(world, table(effects.brand, spec.brands), table(effects.category, spec.categories))
        self._age = table(effects.age_by_category, len(AGE_BANDS), spec.categories)
        self._gender = table(effects.gender_by_category, len(GENDERS), spec.categories)
        self._city = table(effects.city, spec.cities)
        self._scene = table(effects.scene, len(spec.scenes))
        self._scene_category = table(effects.scene_by_category, len(spec.scenes), spec.categories)

    def true_ctr(
        self, users: Rows, ads: Rows, scenes: Rows, positions: Rows, histories: npt.NDArray[np.integer]
    ) -> Float32:
        """The probability of a click on each shown ad.

        users [n], scenes [n] (index in `spec.scenes`), histories [n, L] of ad rows with the newest last and -1 where
        there is none; ads and positions (from 0) both [n] or both [n, k]. Returns float32 in the shape of ads.
        ValueError names the array whose shape or values do not fit.
        """
        self._check(users, ads, scenes, positions, histories)
        shown = ads.reshape(len(users), -1)
        place = positions.reshape(shown.shape)
        out = np.empty(shown.shape, dtype=np.float32)
        step = max(1, CELLS // max(1, shown.shape[1] * histories.shape[1]))
        for first in range(0, len(users), step):
            rows = slice(first, first + step)
            logit = self._plain(users[rows], shown[rows], scenes[rows], place[rows])
            logit += self._relation(shown[rows], histories[rows])
            out[rows] = 1.0 / (1.0 + np.exp(-logit))
        return out.reshape(ads.shape)

    def draw(
        self,
        users: Rows,
        ads: Rows,
        scenes: Rows,
        positions: Rows,
        histories: npt.NDArray[np.integer],
        *,
        random: np.random.Generator,
    ) -> npt.NDArray[np.bool_]:
        """Simulated clicks on each shown ad, drawn from `true_ctr`; arguments as there."""
        ctr = self.true_ctr(users, ads, scenes, positions, histories)
        return random.random(ctr.shape, dtype=np.float32) < ctr

    def _plain(self, users: Rows, ads: Rows, scenes: Rows, positions: Rows) -> Float32:
        """What does not depend on the history, float32[n, k]."""
        effects, people, things = self.world.spec.effects, self.world.users, self.world.ads
        category = things.category[ads]
        gap = np.abs(people.spending[users][:, None] - things.price[ads])
        logit = self._ad[ads] - np.float32(effects.price_gap) * gap
        logit += self._age[people.age[users][:, None], category] + self._gender[people.gender[users][:, None], category]
        logit += (self._city[people.city[users]] + self._scene[scenes])[:, None]
        logit += self._scene_category[scenes[:, None], category]
        logit -= np.float32(effects.position) * np.log1p(positions.astype(np.float32))
        return np.asarray(logit, dtype=np.float32)

    def _relation(self, ads: Rows, histories: npt.NDArray[np.integer]) -> Float32:
        """What the history says about each ad, float32[n, k]."""
        effects, things = self.world.spec.effects, self.world.ads
        there = histories >= 0
        past = np.where(there, histories, 0)
        age = np.arange(histories.shape[1] - 1, -1, -1)
        recency = (there * 2.0 ** (-age / effects.half_life)).astype(np.float32)
        in_category = _weigh(things.category[ads], things.category[past], recency)
        in_brand = _weigh(things.brand[ads], things.brand[past], recency)
        same = np.any(ads[:, :, None] == histories[:, None, :], axis=2)
        gained = _saturate(in_category, effects.interest, effects.interest_scale)
        gained += _saturate(in_brand, effects.loyalty, effects.loyalty_scale)
        if self.world.looks is not None and effects.style:
            gained += np.float32(effects.style) * _alike(self.world.looks.style, ads, past, recency)
        return np.asarray(gained - np.float32(effects.fatigue) * same, dtype=np.float32)

    def _check(self, users: Rows, ads: Rows, scenes: Rows, positions: Rows, histories: npt.NDArray[np.integer]) -> None:
        n, spec = len(users), self.world.spec
        if users.ndim != 1 or scenes.shape != (n,) or histories.ndim != 2 or len(histories) != n:
            raise ValueError(
                f"users, scenes and histories must be [n], [n] and [n, L], they are "
                f"{list(users.shape)}, {list(scenes.shape)} and {list(histories.shape)}"
            )
        if ads.ndim not in (1, 2) or len(ads) != n or positions.shape != ads.shape:
            raise ValueError(
                f"ads and positions must both be [{n}] or [{n}, k], "
                f"they are {list(ads.shape)} and {list(positions.shape)}"
            )
        if histories.shape[1] > spec.history_length:
            raise ValueError(f"histories have {histories.shape[1]} behaviours, at most {spec.history_length} count")
        bounds = (
            ("users", users, 0, spec.users),
            ("ads", ads, 0, spec.ads),
            ("scenes", scenes, 0, len(spec.scenes)),
            ("positions", positions, 0, np.iinfo(np.int32).max),
            ("histories", histories, -1, spec.ads),
        )
        for name, array, low, high in bounds:
            if array.size and not (low <= array.min() and array.max() < high):
                raise ValueError(f"{name} range from {array.min()} to {array.max()}, they must be in [{low}, {high})")


def _ad_part(world: World, brand: Float32, category: Float32) -> Float32:
    """The bias and all that an ad brings along, float32[ads]."""
    ads, effects = world.ads, world.spec.effects
    own = np.float32(effects.quality) * ads.quality + ads.appeal
    return np.asarray(np.float32(effects.bias) + own + brand[ads.brand] + category[ads.category], dtype=np.float32)


def _weigh(of_ads: npt.NDArray[np.integer], of_history: npt.NDArray[np.integer], weight: Float32) -> Float32:
    """Summed weight of the behaviours that share the ad's value: [n, k], [n, L], [n, L] -> [n, k]."""
    equal = (of_ads[:, :, None] == of_history[:, None, :]).astype(np.float32)
    return np.asarray((equal @ weight[:, :, None])[:, :, 0], dtype=np.float32)


def _alike(style: Float32, ads: Rows, history: Rows, weight: Float32) -> Float32:
    """Mean cosine of the ad's style and those of the behaviours, 0 without any: [n, k], [n, L], [n, L] -> [n, k]."""
    total = np.maximum(weight.sum(axis=1, keepdims=True), np.float32(1e-9))
    liked = (weight[:, None, :] @ style[history])[:, 0] / total  # [n, STYLES]
    return np.asarray((style[ads] @ liked[:, :, None])[:, :, 0], dtype=np.float32)


def _saturate(x: Float32, height: float, scale: float) -> Float32:
    return np.asarray(np.float32(height) * -np.expm1(-x / np.float32(scale)), dtype=np.float32)
