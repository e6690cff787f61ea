"""How sure it is that an arm promises other clicks than the control, looked at again and again."""

import numpy as np
import pytest

from benchmarks.aa_worlds import CLICKS, IMPRESSIONS, Seen, World, simulate
from outcomes.arm_users import Column
from outcomes.comparison import calibration_ratio
from outcomes.results import Reading
from outcomes.statistics.moments import Float64, Moments
from outcomes.statistics.sequences import width

READING = Reading()
LIMIT = 1.5
SMALL = World(
    "small-arm", "CTR 1 %, clustered, 10 % of users", arm=0.1, ctr=0.01, spread=0.5, impressions=10.0, uneven=0.5
)
USUAL = World("usual", "CTR 5 %, 5 impressions a user")


def promising(seen: Seen, pctr: float) -> Moments:
    """The same users, each impression with this pCTR."""
    total = np.zeros((*seen.moments.users.shape, len(Column)))
    cross = np.zeros((*total.shape, len(Column)))
    columns = ((Column.KEPT, CLICKS, 1.0), (Column.PROMISED, IMPRESSIONS, pctr))
    for left, of, by in columns:
        total[..., left] = by * seen.moments.total[..., of]
        for right, other, times in columns:
            cross[..., left, right] = by * times * seen.moments.cross[..., of, other]
    return Moments(seen.moments.users, total, cross)


def ever_below(world: World, ratio: float, experiments: int, users: int) -> float:
    """Share of experiments, with an arm of this calibration ÷ control's, in which it is ever surely below 1 / LIMIT."""
    at = np.unique(np.geomspace(200, users, 100).astype(np.int64))
    stopped = []
    for arm, control in simulate(world, experiments, users, at, seed=7):
        two = promising(arm, world.ctr / ratio), promising(control, world.ctr)
        seen: Float64 = arm.moments.total[..., IMPRESSIONS] + control.moments.total[..., IMPRESSIONS]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = calibration_ratio(*two, width(seen, READING.planned_impressions, READING.guard_alpha))
        ready = np.minimum(arm.moments.users, control.moments.users) >= READING.min_users
        stopped.append((ready & (found.high < 1 / LIMIT)).any(axis=1))
    return float(np.concatenate(stopped).mean())


@pytest.mark.parametrize("world", [SMALL, USUAL])
def test_an_arm_exactly_at_the_limit_is_stopped_as_seldom_as_stated(world: World) -> None:
    assert ever_below(world, 1 / LIMIT, 150, 20_000) <= READING.guard_alpha


def test_an_arm_far_beyond_it_is_stopped() -> None:
    assert ever_below(USUAL, 1 / 3, 20, 4_000) == 1.0
