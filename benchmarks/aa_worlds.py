"""Simulated experiments whose truth is known: users who come to two arms, see, click, and come back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from outcomes.statistics.moments import Float64, Moments

CLICKS, IMPRESSIONS = 0, 1
PAST = (2, 3, 4)
"""Columns of the moments: the metric's numerator and denominator; past clicks, past impressions, whether any."""
CHUNK_USERS = 1_000_000
"""Of as many users experiments are simulated at once: 8 MB a column."""


@dataclass(frozen=True, slots=True)
class World:
    """How users behave."""

    name: str
    what: str
    arm: float = 0.5
    """Share of the users dealt to the arm."""
    ctr: float = 0.05
    spread: float = 20.0
    """Users' own click rates are Beta(ctr · spread, (1 − ctr) · spread): the smaller, the more they differ."""
    impressions: float = 5.0
    """Of a user, on average."""
    uneven: float = 2.0
    """Shape of the gamma that users' activity is drawn from: the smaller, the more of it is a few users'."""
    bids: float | None = None
    """The metric is the sum of bids of clicks, log-normal with this deviation, instead of clicks."""
    past: bool = False
    """70 % of users have a past of twice as many impressions."""
    returning: bool = False
    """A tenth as many users come back at every look, half of them from the start, instead of once each."""
    tired: float = 1.0
    """A returning user's click rate is multiplied by this after each click."""
    lift: float = 0.0
    """The arm's click rates ÷ the control's − 1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one arm of E experiments shows at L looks."""

    moments: Moments
    """Leading shape [E, L]."""
    clickers: Float64
    """[E, L]: users with any click."""
    squares: Float64
    """[E, L]: sum of squares over impressions of what is counted: clicks, or bids of clicks."""


def simulate(world: World, experiments: int, users: int, at: npt.NDArray[np.int64], seed: int) -> Iterator[list[Seen]]:
    """Arm and control of chunks of experiments, seen after `at` [L] of the `users`, or at as many looks."""
    random = np.random.default_rng(seed)
    simulated = _returning if world.returning else _arriving
    users = users // 10 if world.returning else users
    chunk = max(1, CHUNK_USERS // users)
    for begun in range(0, experiments, chunk):
        yield simulated(world, min(chunk, experiments - begun), users, at, random)


def _arriving(
    world: World, count: int, users: int, at: npt.NDArray[np.int64], random: np.random.Generator
) -> list[Seen]:
    shape = (count, users)
    dealt = random.random(shape) < world.arm
    activity = random.gamma(world.uneven, (world.impressions - 1.0) / world.uneven, shape)
    rate = _rates(world, shape, random)
    seen = 1 + random.poisson(activity)
    clicks = random.binomial(seen, np.minimum(rate * (1.0 + world.lift * dealt), 1.0))
    columns, squares = [clicks, seen], clicks
    if world.bids is not None:
        bids = random.lognormal(0.0, world.bids, int(clicks.sum()))
        whose = np.repeat(np.arange(clicks.size), clicks.ravel())
        columns[0] = np.bincount(whose, bids, clicks.size).reshape(shape)
        squares = np.bincount(whose, bids**2, clicks.size).reshape(shape)
    if world.past:
        known = random.random(shape) < 0.7
        before = random.poisson(2.0 * (activity + 1.0)) * known
        columns += [random.binomial(before, rate), before, known.astype(np.int64)]
    ends = np.concatenate(([0], at[:-1]))

    def summed(values: Float64) -> Float64:
        found: Float64 = np.add.reduceat(values, ends, axis=1).cumsum(axis=1)
        return found

    return [_seen(columns, mine, clicks > 0, squares, summed) for mine in (dealt, ~dealt)]


def _returning(
    world: World, count: int, users: int, at: npt.NDArray[np.int64], random: np.random.Generator
) -> list[Seen]:
    shape, looks = (count, users), len(at)
    dealt = random.random(shape) < world.arm
    often = random.gamma(world.uneven, 10.0 * world.impressions / world.uneven / looks, shape)
    starts = np.where(random.random(shape) < 0.5, 0, random.integers(0, looks, shape))
    rate = _rates(world, shape, random) * (1.0 + world.lift * dealt)
    clicks, seen = np.zeros(shape), np.zeros(shape)
    arms: tuple[list[Seen], list[Seen]] = ([], [])
    for look in range(looks):
        here = often * (starts <= look)
        now = np.minimum(rate * world.tired**clicks if world.tired < 1.0 else rate, 1.0)
        new = random.poisson(here * now)
        clicks += new
        seen += new + random.poisson(here * (1.0 - now))
        for arm, mine in zip(arms, (dealt, ~dealt), strict=True):
            arm.append(_seen([clicks, seen], mine & (seen > 0), clicks > 0, clicks, _over_users))
    return [_looks(arm) for arm in arms]


def _seen(
    columns: Sequence[npt.NDArray[Any]],
    mine: npt.NDArray[np.bool_],
    clicked: npt.NDArray[np.bool_],
    squares: npt.NDArray[Any],
    summed: Callable[[Float64], Float64],
) -> Seen:
    """Of the users `mine`; `summed` adds up users, [E, users] to [E, L] or [E]."""
    counted = mine.astype(np.float64)
    own = [column * counted for column in columns]
    cross = np.empty((*summed(counted).shape, len(columns), len(columns)))
    for i, left in enumerate(own):
        for j in range(i + 1):
            cross[..., i, j] = cross[..., j, i] = summed(left * columns[j])
    moments = Moments(summed(counted), np.stack([summed(column) for column in own], axis=-1), cross)
    return Seen(moments, summed(counted * clicked), summed(counted * squares))


def _over_users(values: Float64) -> Float64:
    summed: Float64 = values.sum(axis=1)
    return summed


def _looks(each: list[Seen]) -> Seen:
    """Looks one after another, [E], as [E, L]."""
    moments = Moments(
        np.stack([look.moments.users for look in each], axis=1),
        np.stack([look.moments.total for look in each], axis=1),
        np.stack([look.moments.cross for look in each], axis=1),
    )
    return Seen(
        moments, np.stack([look.clickers for look in each], axis=1), np.stack([look.squares for look in each], axis=1)
    )


def _rates(world: World, shape: tuple[int, int], random: np.random.Generator) -> Float64:
    """Users' own click rates."""
    return random.beta(world.ctr * world.spread, (1.0 - world.ctr) * world.spread, shape)
