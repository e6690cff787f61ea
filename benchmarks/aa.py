"""A/A experiments: how often a test that is looked at again and again says that two arms differ when both are the same;
and how often it finds a true lift. Beside ours, the z-tests that are not made for being looked at."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.aa_worlds import CLICKS, IMPRESSIONS, PAST, Seen, World, simulate
from benchmarks.report import Report, Table
from outcomes.comparison import expected_clickers
from outcomes.results import Reading
from outcomes.statistics.mismatch import log_e_value
from outcomes.statistics.moments import Float64
from outcomes.statistics.ratios import Rate, difference, lift, rates
from outcomes.statistics.sequences import width

Flags = npt.NDArray[np.bool_]
LOOKS = 100
FIRST = 100
"""Users of both arms at the first look; the looks are evenly spaced in the logarithm."""
USERS, QUICK_USERS = 20_000, 4_000
EXPERIMENTS, QUICK_EXPERIMENTS = 1_000, 200
DROP = 0.05
"""The guardrail whose false stops are counted: ctr_drop."""
Z = 1.959964
"""The two-sided 5 % point of the normal distribution."""

SAME = (
    World("usual", "CTR 5 %, 5 impressions a user"),
    World(
        "clustered",
        "20 impressions, most of them a few users'; half of all users hardly ever click",
        spread=0.5,
        impressions=20.0,
        uneven=0.5,
    ),
    World("rare", "CTR 1 %, clustered", ctr=0.01, spread=0.5, impressions=10.0, uneven=0.5),
    World(
        "small-arm",
        "CTR 1 %, clustered, 10 % of users in the arm",
        arm=0.1,
        ctr=0.01,
        spread=0.5,
        impressions=10.0,
        uneven=0.5,
    ),
    World("revenue", "eCPM, bids log-normal with deviation 1, 20 % of users in the arm", arm=0.2, bids=1.0),
    World("past", "CUPED, 70 % of users have a past", spread=5.0, impressions=10.0, past=True),
    World("returning", "a tenth of the users, who come back at every look", spread=5.0, uneven=0.5, returning=True),
    World(
        "tired", "returning users click 30 % less after each click", spread=5.0, uneven=0.5, returning=True, tired=0.7
    ),
)
LIFTED = (
    World("usual +10 %", "as usual", lift=0.1),
    World("past +10 %", "users differ, 70 % have a past", spread=5.0, impressions=10.0, past=True, lift=0.1),
    World("returning +50 %", "a tenth of the users, who come back", spread=5.0, uneven=0.5, returning=True, lift=0.5),
    World("usual -30 %", "as usual", lift=-0.3),
)
"""In the order of the figures: power, CUPED, then others."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was said of E experiments at L looks, all [E, L]."""

    ready: Flags
    """Users enough to compare."""
    better: Flags
    worse: Flags
    covered: Flags
    """The interval of the lift holds the true one, or there is none yet."""
    stopped: Flags
    """The guardrail would stop the arm."""
    z_users: Flags
    """The z-test on users' rows sees a difference."""
    z_impressions: Flags
    """The z-test on impressions does."""
    mismatch: Flags
    own_variances: Flags
    """`better` or `worse`, if each arm's variance were its own."""
    better_unadjusted: Flags
    """As `better`, without users' past."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`--experiments N` and `--seed N`."""
    parser.add_argument("--experiments", type=int, metavar="N", help=f"of each kind [{EXPERIMENTS}]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="[1]")


def run(arguments: argparse.Namespace) -> Report:
    """Simulate, look, count. ValueError without experiments."""
    users = QUICK_USERS if arguments.quick else USERS
    count = arguments.experiments or (QUICK_EXPERIMENTS if arguments.quick else EXPERIMENTS)
    if count < 1:
        raise ValueError(f"--experiments is {count}, at least 1 is needed")
    at = np.unique(np.geomspace(FIRST, users, LOOKS).astype(np.int64))
    reading = Reading()
    report = Report("aa")
    same = {world.name: outcome(world, count, users, at, reading, arguments.seed + i) for i, world in enumerate(SAME)}
    _same(report, same, count, at)
    lifted = {
        world: outcome(world, count, users, at, reading, arguments.seed + 100 + i) for i, world in enumerate(LIFTED)
    }
    _lifted(report, lifted, count, users, at)
    return report


def outcome(world: World, count: int, users: int, at: npt.NDArray[np.int64], reading: Reading, seed: int) -> Outcome:
    """What is said of `count` experiments in `world`, each looked at after `at` users."""
    chunks = [_said(world, arm, control, reading) for arm, control in simulate(world, count, users, at, seed)]
    return Outcome(*(np.concatenate([getattr(each, name) for each in chunks]) for name in Outcome.__slots__))


def _said(world: World, arm: Seen, control: Seen, reading: Reading) -> Outcome:
    both = [arm.moments, control.moments]
    users = np.minimum(arm.moments.users, control.moments.users)
    clickers = expected_clickers(arm.moments.users, control.moments.users, arm.clickers + control.clickers)
    ready = (users >= reading.min_users) & (clickers >= reading.min_clickers)
    plain = rates(both, CLICKS, IMPRESSIONS)
    adjusted = rates(both, CLICKS, IMPRESSIONS, PAST) if world.past else plain
    seen = [each.total[..., IMPRESSIONS] for each in both]
    own = rates(both, CLICKS, IMPRESSIONS, PAST if world.past else (), pooled=False)
    z = rates(both, CLICKS, IMPRESSIONS, pooled=False)
    impressions = seen[0] + seen[1]
    wide = width(impressions, reading.planned_impressions, reading.alpha)
    guard = width(impressions, reading.planned_impressions, reading.guard_alpha)
    with np.errstate(invalid="ignore"):  # looks that are not ready may have no interval
        found = difference(adjusted[0], adjusted[1], wide)
        relative = lift(adjusted[0], adjusted[1], wide)
        drop = lift(adjusted[0], adjusted[1], guard).high < -DROP
        counts = np.stack([each.users for each in both], axis=-1)
        return Outcome(
            ready=ready,
            better=ready & (found.low > 0),
            worse=ready & (found.high < 0),
            covered=~ready | ((relative.low <= world.lift) & (world.lift <= relative.high)),
            stopped=ready & drop & (np.minimum(*seen) >= 1000),
            z_users=ready & (np.abs(z[0].value - z[1].value) > Z * _error(z)),
            z_impressions=ready & _z_impressions(arm, control),
            mismatch=log_e_value(counts, (world.arm, 1.0 - world.arm)) > -np.log(reading.srm_alpha),
            own_variances=ready & (np.abs(own[0].value - own[1].value) > wide * _error(own)),
            better_unadjusted=ready & (difference(plain[0], plain[1], wide).low > 0),
        )


def _error(arms: Sequence[Rate]) -> Float64:
    """The standard error of a difference."""
    error: Float64 = np.sqrt(arms[0].variance + arms[1].variance)
    return error


def _z_impressions(arm: Seen, control: Seen) -> Flags:
    """As if every impression were drawn by itself."""
    values, variances = [], []
    for each in (arm, control):
        seen = each.moments.total[..., IMPRESSIONS]
        values.append(each.moments.total[..., CLICKS] / seen)
        variances.append((each.squares / seen - values[-1] ** 2) / seen)
    apart: Flags = np.abs(values[0] - values[1]) > Z * np.sqrt(variances[0] + variances[1])
    return apart


def _ever(flags: Flags) -> float:
    """Share of experiments with it at any look."""
    return float(flags.any(axis=1).mean())


def _same(report: Report, same: dict[str, Outcome], count: int, at: npt.NDArray[np.int64]) -> None:
    rows: list[tuple[str | int | float, ...]] = []
    for world in SAME:
        found = same[world.name]
        said = found.better | found.worse
        shown = (
            _ever(found.ready),
            _ever(said),
            _ever(found.own_variances),
            _ever(found.z_users),
            _ever(found.z_impressions),
            float(found.z_impressions[:, -1].mean()),
            _ever(found.mismatch),
            _ever(found.stopped),
        )
        rows.append((world.name, world.what, *map(_percent, shown)))
        report.figures[f"aa.{world.name}.false_alarms"] = _ever(said)
    heads = (
        "users",
        "what",
        "compared",
        "ours",
        "own variances",
        "z by users",
        "z by impressions",
        "the same, looked at once",
        "mismatch",
        "stopped",
    )
    report.tables.append(
        Table(f"{count} experiments without a difference, {len(at)} looks: those that ever said one", heads, rows)
    )
    whole = list(same.values())
    report.figures |= {
        "aa.false_alarms": max(report.figures.values()),
        "aa.naive_false_alarms": float(np.mean([_ever(each.z_impressions) for each in whole])),
        "aa.peeking_false_alarms": float(np.mean([_ever(each.z_users) for each in whole])),
        "aa.srm_false_alarms": float(np.mean([_ever(each.mismatch) for each in whole])),
        "aa.guard_false_stops": float(np.mean([_ever(each.stopped) for each in whole])),
    }
    usual = same["usual"]
    curves = {
        "ours": usual.better | usual.worse,
        "z-test by users": usual.z_users,
        "z-test by impressions": usual.z_impressions,
    }
    for name, flags in curves.items():
        ever = np.logical_or.accumulate(flags, axis=1).mean(axis=0)
        report.series[f"aa.alarms.{name}"] = [(float(at[i]), float(ever[i])) for i in range(0, len(at), 3)]


def _lifted(report: Report, lifted: dict[World, Outcome], count: int, users: int, at: npt.NDArray[np.int64]) -> None:
    rows: list[tuple[str | int | float, ...]] = []
    for world, said in lifted.items():
        share = (np.arange(len(at)) + 1.0) / len(at) if world.returning else at / at[-1]
        found, wrong = (said.better, said.worse) if world.lift > 0 else (said.worse, said.better)
        rows.append(
            (
                world.name,
                world.what,
                _percent(_ever(found)),
                _percent(_ever(said.own_variances)),
                _percent(_ever(said.better_unadjusted)) if world.past else "",
                _when(found, share),
                _percent(float(said.z_users[:, -1].mean())),
                _percent(_ever(wrong)),
                _percent(float(said.covered.all(axis=1).mean())),
                _percent(_ever(said.stopped)),
                _when(said.stopped, share),
            )
        )
    heads = (
        "users",
        "what",
        "found",
        "by own variances",
        "without the past",
        "after",
        "z by users, looked at once",
        "called the opposite",
        "interval holds it at all looks",
        "stopped",
        "after",
    )
    report.tables.append(Table(f"{count} experiments with a true lift, up to {users:,} users", heads, rows))
    outcomes = list(lifted.values())
    report.figures |= {
        "aa.power": _ever(outcomes[0].better),
        "aa.cuped.power": _ever(outcomes[1].better),
        "aa.cuped.power_without": _ever(outcomes[1].better_unadjusted),
        "aa.coverage": min(float(each.covered.all(axis=1).mean()) for each in outcomes),
        "aa.guard_power": _ever(outcomes[-1].stopped),
    }


def _when(flags: Flags, share: Float64) -> str:
    """When it was first seen, the median of those experiments in which it was; `share` [L]: of the data, by look."""
    seen = flags.any(axis=1)
    return f"{np.median(share[flags[seen].argmax(axis=1)]):.0%}" if seen.any() else ""


def _percent(share: float) -> str:
    return f"{share:.1%}"
