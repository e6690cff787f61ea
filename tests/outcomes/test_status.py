"""A verdict as text."""

from outcomes.results import Reading
from outcomes.status import text
from outcomes.verdict import judge
from tests.outcomes.simulated import crowd, experiment

NOW = 1_000_100.0
EVEN = {"control": 1500, "new": 1500}


def shown(users: dict[str, int], ctr: dict[str, float], **changes: object) -> list[str]:
    return text(judge(experiment(**changes), *crowd(users, ctr), Reading(), NOW)).splitlines()


def test_arms_are_a_table_and_differences_another() -> None:
    lines = shown(EVEN, {"control": 0.1, "new": 0.2})
    assert lines[0] == "try"
    assert lines[2].split()[:4] == ["arm", "users", "impressions", "clicks"]
    assert lines[3].startswith("control")
    assert lines[4].startswith("new")
    assert lines[4].endswith("better")
    assert "1,500" in lines[4]
    ctr = next(line for line in lines if line.startswith("new") and "ctr" in line)
    assert "%" in ctr
    assert "[+" in ctr
    assert lines[-2].startswith("shares of users are as dealt: log e-value")
    assert lines[-1] == "ctr decides; intervals hold at every look, however often"


def test_what_is_missing_or_wrong_is_said() -> None:
    few = shown({"control": 150, "new": 50}, {"control": 0.1, "new": 0.1})
    assert "new: new has 50 users, 100 are needed" in few
    assert any(line.startswith("mismatch: users came as control 150, new 50") for line in few)
    over = shown(EVEN, {"control": 0.1, "new": 0.1}, arms=[{"name": "new", "weight": 0.5, "stopped": True}])
    assert "new: stopped" in over


def test_an_experiment_without_users_has_dashes() -> None:
    lines = shown({"control": 0, "new": 0}, {"control": 0.1, "new": 0.1})
    assert lines[4].split()[:6] == ["new", "0", "0", "0", "-", "-"]
