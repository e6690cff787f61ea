"""What the benchmark of a drifting world says of its turns."""

import pytest

from benchmarks.closed_loop import Worth
from benchmarks.drift import Turned, report


def turn(*, is_served: bool, renewed: Worth) -> Turned:
    auc = {"judge.finerank.auc.before": 0.7, "judge.finerank.auc.after": 0.72}
    found = {"is_served": is_served, "gate": "passed 14 checks", **auc}
    return Turned(found, 0.65, Worth(shown=1000, clicks=100.0, revenue=50.0), renewed)


def test_the_renewed_bundle_is_held_against_the_one_left_alone() -> None:
    same, better = Worth(1000, 100.0, 50.0), Worth(2000, 300.0, 90.0)
    found = report([turn(is_served=False, renewed=same), turn(is_served=True, renewed=better)], 0.2)
    figures = found.figures
    assert (figures["drift.turn1.served"], figures["drift.turn1.ctr_lift"]) == (0.0, 0.0)
    assert figures["drift.turn2.ctr_lift"] == pytest.approx(0.5)
    assert figures["drift.turn2.ecpm_lift"] == pytest.approx(-0.1)
    assert figures["drift.ctr_lift"] == figures["drift.turn2.ctr_lift"]
    assert (figures["drift.auc.left"], figures["drift.auc.served"], figures["drift.auc.renewed"]) == (0.65, 0.7, 0.72)
    (table,) = found.tables
    assert table.rows[1] == (
        2,
        "0.6500",
        "0.7000",
        "0.7200",
        "passed 14 checks",
        "10.00%",
        "15.00%",
        "+50.0%",
        "-10.0%",
    )
    assert found.series["drift.lift.true CTR"] == [(1.0, 0.0), (2.0, pytest.approx(0.5))]


def test_a_turn_that_told_no_auc_has_none() -> None:
    told = turn(is_served=False, renewed=Worth(10, 1.0, 1.0))
    bare = Turned({"is_served": False, "gate": "not asked"}, told.left_auc, told.left, told.renewed)
    found = report([bare], 0.2)
    assert "drift.auc.served" not in found.figures
    assert found.tables[0].rows[0][1:4] == ("0.6500", "-", "-")
