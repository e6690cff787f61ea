"""Likes of the simulated marketplace: what a user does after some clicks, a second label with a known probability.

With z the true logit of the click (truth.py), z₀ the effects' bias, and G, H tables of centred normal numbers,

    logit P(like | click) = ln(likes / (1 − likes)) + like_by_click · (z − z₀) + G[brand] + H[age]
    P(like) = P(click) · P(like | click)

So a like has the tastes of the click, and some of its own. Likes have random numbers of their own: users, ads and
clicks are those of the same marketplace without likes.
"""

import numpy as np
import numpy.typing as npt

from models.marketplace.spec import AGE_BANDS
from models.marketplace.world import Float32, Rows, World


class Likes:
    """The true like probabilities of one simulated world, and likes drawn from them."""

    def __init__(self, world: World) -> None:
        """ValueError for a world without likes."""
        share, effects = world.spec.likes, world.spec.effects
        if not share:
            raise ValueError("likes is 0: this marketplace has none")
        random = np.random.default_rng([world.spec.seed, 7])

        def table(spread: float, size: int) -> Float32:
            drawn = random.standard_normal(size)
            return np.asarray(spread * (drawn - drawn.mean()), dtype=np.float32)

        self.world, self.random = world, random
        self._brand = table(effects.like_by_brand, world.spec.brands)
        self._age = table(effects.like_by_age, len(AGE_BANDS))
        self._bias = float(np.log(share / (1 - share)))

    def given_click(self, users: Rows, ads: Rows, true_ctr: Float32) -> Float32:
        """P(like | click): users [n], ads [n, k] and their click probabilities [n, k] -> float32[n, k]."""
        effects = self.world.spec.effects
        probability = true_ctr.astype(np.float64)
        click = np.log(probability) - np.log1p(-probability)
        logit = self._bias + effects.like_by_click * (click - effects.bias)
        logit += self._brand[self.world.ads.brand[ads]] + self._age[self.world.users.age[users]][:, None]
        return np.asarray(1.0 / (1.0 + np.exp(-logit)), dtype=np.float32)

    def draw(
        self, users: Rows, ads: Rows, true_ctr: Float32, clicks: npt.NDArray[np.bool_]
    ) -> tuple[Float32, npt.NDArray[np.bool_]]:
        """P(like) and likes of shown ads, [n, k] both; the next likes of the log, which are drawn in its order."""
        given = self.given_click(users, ads, true_ctr)
        return true_ctr * given, clicks & (self.random.random(given.shape, dtype=np.float32) < given)
