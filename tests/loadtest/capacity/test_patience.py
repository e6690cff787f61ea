"""What is left out, step by step, and that the rules are the service's own."""

import inspect

import pytest

import service.budget
import service.load_gate
from loadtest.capacity import patience
from loadtest.capacity.costs import Rules
from loadtest.capacity.patience import Patience
from loadtest.capacity.sizing import POLLS
from loadtest.capacity.wanted import Wanted
from service.settings import Settings


def test_the_rules_are_the_services_own() -> None:
    assert (patience.DOWN, patience.LAST, patience.UP) == (
        service.load_gate.DOWN,
        service.load_gate.LAST,
        service.load_gate.UP,
    )
    assert patience.KEPT_BACK_S * 1e3 == service.budget.ANSWER_MS
    assert (patience.SMOOTHING, patience.FORGIVENESS) == (service.budget.SMOOTHING, service.budget.FORGIVENESS)
    fields, rules = Settings.model_fields, Rules()
    assert rules.max_in_flight == fields["max_in_flight"].default
    assert rules.deadline_s * 1e3 == fields["default_deadline_ms"].default
    wanted = Wanted(rps=1, p99=20)
    assert wanted.max_in_flight == fields["max_in_flight"].default
    assert wanted.deadline == fields["default_deadline_ms"].default
    assert wanted.cache_memory == fields["cache_bytes"].default
    assert pytest.approx(1 / fields["state_poll_seconds"].default + 1 / fields["flags_poll_seconds"].default) == POLLS


def test_the_fine_ranker_is_left_out_when_it_would_be_late_and_tried_again_in_time() -> None:
    one = Patience(Rules(deadline_s=0.1))
    assert one.turn(0.001, 0.02, 0.0, 0) == (0.021, False)
    assert one.turn(0.001, 0.02, 0.09, 0) == (0.001, True)
    for _ in range(10):
        took, _ = one.turn(0.001, 0.02, 0.09, 0)
        if took > 0.02:
            break
    else:
        raise AssertionError("what is left out is thought cheaper each time, until it is tried")
    assert one.turn(0.001, 0.02, 0.2, 0) == (0.001, True)


def test_an_estimate_follows_what_was_seen() -> None:
    one = Patience(Rules(deadline_s=0.1))
    for _ in range(60):
        one.turn(0.0, 0.03, 0.0, 0)
    assert one.turn(0.0, 0.03, 0.065, 0) == (0.03, False)
    assert one.turn(0.0, 0.03, 0.075, 0) == (0.0, True)


def test_the_load_drives_requests_down_the_ladder_and_lets_them_up_again() -> None:
    """Turns of 10 ms and a deadline of 100: more than 5 in line are too many for the first rung; the second takes a
    fifth."""
    one = Patience(Rules(deadline_s=0.1, rungs=(1.0, 0.2), max_in_flight=1000))
    assert one.turn(0.0, 0.01, 0.0, 0) == (0.01, False)
    assert one.turn(0.0, 0.01, 0.0, 4) == (0.01, False)
    assert one.turn(0.0, 0.01, 0.0, 6) == (0.002, True)
    for _ in range(6):  # those that waited have had their turn before anything is decided anew
        assert one.turn(0.0, 0.01, 0.0, 0) == (0.002, True)
    assert one.turn(0.0, 0.01, 0.0, 0) == (0.01, False)


def test_beyond_the_last_rung_there_is_none() -> None:
    one = Patience(Rules(deadline_s=0.1, rungs=(1.0, 0.5), max_in_flight=1000))
    one.turn(0.0, 0.01, 0.0, 0)
    assert one.turn(0.0, 0.01, 0.0, 6) == (0.005, True)
    for _ in range(6):
        one.turn(0.0, 0.01, 0.0, 20)
    assert one.turn(0.001, 0.01, 0.0, 20) == (0.001, True)


def test_without_a_ladder_the_load_alone_leaves_nothing_out() -> None:
    one = Patience(Rules(deadline_s=0.1))
    one.turn(0.0, 0.01, 0.0, 0)
    assert one.turn(0.0, 0.01, 0.0, 60) == (0.01, False)


def test_the_service_has_no_further_constants() -> None:
    """A new rule there is to be looked at here."""
    found = {name for name, value in inspect.getmembers(service.load_gate) if name.isupper()}
    assert found == {"DOWN", "LAST", "UP", "SMOOTHING"}
