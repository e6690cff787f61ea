"""The simulation's knee against that of services whose waiting is a line of arithmetic."""

from pathlib import Path

import numpy as np
import pytest

from loadtest.capacity.cluster import Cluster
from loadtest.capacity.costs import Costs, Rules, costs_of, rules_of
from loadtest.capacity.errors import CapacityError
from loadtest.capacity.knee import knee_of, knee_of_process, process_of
from loadtest.capacity.measured import read_measured
from loadtest.footprint import Rung
from loadtest.slo import Slo
from tests.loadtest.capacity.services import AROUND_MS, PROMISE, REST_MS, TURN_MS, load_test, true_knee

UNEVEN = (1.0, 2.0, 2.0, 7.0)


@pytest.mark.parametrize("turn_ms", [(TURN_MS,), UNEVEN])
def test_the_knee_is_the_services(tmp_path: Path, turn_ms: tuple[float, ...]) -> None:
    """A load test's file says nothing of the service but what was measured from outside; its knee is known from
    Lindley's recursion."""
    measured = read_measured(load_test(tmp_path / "found.json", turn_ms))
    rules = rules_of(measured, 64, 0.2)
    found = knee_of(Cluster(process_of(measured, rules), rules), PROMISE, 10_000, 1, splits=4)
    assert found.rate == pytest.approx(true_knee(turn_ms), rel=0.1)
    assert found.bounded


def test_what_a_request_costs_is_found_from_outside(tmp_path: Path) -> None:
    measured = read_measured(load_test(tmp_path / "found.json"))
    costs = costs_of(measured)
    assert costs.turns_s.mean() * 1e3 == pytest.approx(TURN_MS, rel=0.01)
    assert (costs.intake_s + costs.answer_s) * 1e3 == pytest.approx(REST_MS, rel=0.05)
    assert costs.finerank_share == pytest.approx(0.5, rel=0.01)
    around = process_of(measured, Rules(), 10_000).around_s
    assert around * 1e3 == pytest.approx(AROUND_MS, abs=0.2)


def test_rungs_are_as_dear_as_the_service_says(tmp_path: Path) -> None:
    measured = read_measured(load_test(tmp_path / "found.json"))
    assert rules_of(measured, 7, 0.1) == Rules(7, 0.1, (1.0,))
    rungs = [
        Rung(name="full", expected_ms=4.0),
        Rung(name="light", expected_ms=1.0),
        Rung(name="new", expected_ms=None),
    ]
    footprint = measured.test.footprint.model_copy(update={"rungs": rungs})
    test = measured.test.model_copy(update={"footprint": footprint})
    again = type(measured)("x", test, measured.turns_s)
    assert rules_of(again, 7, 0.1).rungs == (1.0, 0.25, 1.0)


def test_less_than_a_request_alone_takes_cannot_be_promised() -> None:
    costs = Costs(np.array([0.004, 0.03, 0.03]), 0.0, 0.001, 0.001, 0.002)
    with pytest.raises(CapacityError, match=r"p99 20 ms cannot be reached.*take 34\.0 ms or more"):
        knee_of(Cluster(costs), Slo(rate=1, p99_ms=20), 1000, 1)
    reading = Cluster(Costs(np.array([0.004]), 0.0, 0.0, 0.0), Rules(redis_s=0.02))
    with pytest.raises(CapacityError, match=r"take 24\.0 ms or more"):
        knee_of(reading, Slo(rate=1, p99_ms=20), 1000, 1)


def test_a_share_of_degraded_answers_that_cannot_be_held_is_named() -> None:
    """Every fine-ranking takes longer than the deadline."""
    costs = Costs(np.array([0.01]), 0.9, 0.0, 0.0)
    with pytest.raises(CapacityError, match="degraded"):
        knee_of_process(costs, Rules(deadline_s=0.005), "random", Slo(rate=1, p99_ms=50), 1000, 1)
