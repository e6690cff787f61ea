"""The proof by simulation, a small version of it: few experiments, bounds that chance does not reach."""

import argparse

import numpy as np
import pytest

from benchmarks.aa import LIFTED, SAME, Outcome, outcome, run
from benchmarks.aa_worlds import CLICKS, IMPRESSIONS, PAST, World, simulate
from outcomes.results import Reading

AT = np.unique(np.geomspace(100, 12_000, 50).astype(np.int64))


def ever(world: World, seed: int = 1, reading: Reading | None = None) -> Outcome:
    return outcome(world, 200, int(AT[-1]), AT, reading or Reading(planned_impressions=2000), seed)


@pytest.mark.parametrize("world", SAME, ids=lambda world: world.name)
def test_arms_that_are_alike_are_seldom_told_apart(world: World) -> None:
    """Of 200 experiments, each looked at 50 times, at most 5 % may say a difference; more than 18 would be chance
    once in 100 times."""
    found = ever(world)
    assert found.ready.any(axis=1).mean() > 0.2
    assert (found.better | found.worse).any(axis=1).mean() <= 0.09
    assert found.mismatch.any(axis=1).mean() <= 0.04
    assert not found.stopped.any()
    assert found.covered.all(axis=1).mean() >= 0.91


def test_impressions_are_no_independent_draws() -> None:
    """The mistake that is avoided: a z-test on impressions of users that differ."""
    clustered = next(world for world in SAME if world.name == "clustered")
    found = ever(clustered)
    assert found.z_impressions[:, -1].mean() > 0.5
    assert found.z_impressions.any(axis=1).mean() > 0.8


def test_looking_again_and_again_is_no_single_look() -> None:
    found = ever(SAME[0])
    assert found.z_users[:, -1].mean() < 0.1
    assert found.z_users.any(axis=1).mean() > 0.15


def test_a_true_lift_is_found_and_its_interval_holds_it() -> None:
    found = ever(World("large", "", lift=0.5))
    assert found.better.any(axis=1).mean() > 0.9
    assert not found.worse.any()
    assert found.covered.all(axis=1).mean() > 0.95
    assert ever(World("bad", "", ctr=0.1, lift=-0.6)).stopped.any(axis=1).mean() > 0.8


def test_the_past_finds_more() -> None:
    found = ever(World("past", "", ctr=0.2, spread=2.0, impressions=10.0, past=True, lift=0.08))
    assert found.better.any(axis=1).mean() > found.better_unadjusted.any(axis=1).mean() + 0.2


@pytest.mark.parametrize("world", [SAME[0], *(world for world in SAME if world.past or world.bids or world.returning)])
def test_looks_add_up(world: World) -> None:
    """What a look shows is the sum of users so far; the last look has all of them."""
    ((arm, control),) = simulate(world, 3, 2000, np.array([100, 1000, 2000]), seed=1)
    total = arm.moments.total + control.moments.total
    assert (np.diff(total[..., IMPRESSIONS], axis=1) > 0).all()
    assert (np.diff(arm.clickers, axis=1) >= 0).all()
    if not world.returning:
        assert (arm.moments.users + control.moments.users == [100, 1000, 2000]).all()
        assert arm.moments.users[:, -1] / 2000 == pytest.approx(world.arm, abs=0.05)
    if world.bids is None:
        assert total[..., CLICKS].sum() / total[..., IMPRESSIONS].sum() == pytest.approx(world.ctr, rel=0.5)
        assert (arm.squares >= arm.clickers).all()
    if world.past:
        assert arm.moments.cross.shape == (3, 3, 5, 5)
        assert arm.moments.mean[..., PAST[2]] == pytest.approx(0.7, abs=0.2)


def test_it_reports_every_kind() -> None:
    report = run(argparse.Namespace(quick=True, experiments=10, seed=1))
    assert [row[0] for row in report.tables[0].rows] == [world.name for world in SAME]
    assert [row[0] for row in report.tables[1].rows] == [world.name for world in LIFTED]
    wanted = {"aa.false_alarms", "aa.naive_false_alarms", "aa.power", "aa.srm_false_alarms", "aa.coverage"}
    assert wanted <= set(report.figures)
    assert report.figures["aa.naive_false_alarms"] > report.figures["aa.false_alarms"]
    assert len(report.series) == 3
    with pytest.raises(ValueError, match="--experiments is -1"):
        run(argparse.Namespace(quick=True, experiments=-1, seed=1))
