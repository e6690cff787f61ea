"""How far down the load drives requests: reckoned from the queue, not from a clock."""

from itertools import count, pairwise

from service.load_gate import DOWN, UP, LoadGate

DEADLINE = 100.0
TURNS = {0: 10.0, 1: 4.0, 2: 1.0}
"""Milliseconds of a turn at each step."""
TURN = count(1)
"""Of the process; every call is another."""


def judged(gate: LoadGate, *waiting: int, turns: dict[int, float] = TURNS, deadline: float = DEADLINE) -> list[int]:
    return [gate.judge(each, next(TURN), deadline, turns.__getitem__) for each in waiting]


def test_a_short_queue_changes_nothing() -> None:
    assert judged(LoadGate(2, 64), 0, 1, 2, 5, 0) == [0] * 5, "5 turns of 10 ms are half of the deadline, not more"


def test_a_queue_that_would_take_half_the_deadline_steps_down() -> None:
    assert judged(LoadGate(2, 64), 5, 6) == [0, 1]


def test_the_next_step_waits_for_those_that_waited() -> None:
    gate = LoadGate(2, 1000)
    assert judged(gate, 13) == [1]
    assert judged(gate, *[30] * 13) == [1] * 13, "they are served before it is known what the step brought"
    assert judged(gate, 30) == [2], "30 turns of 4 ms are still more than half of the deadline"


def test_turns_of_other_bundles_count_as_well() -> None:
    """A bundle that serves every tenth request goes down as fast as one that serves all, and comes back as fast."""
    gate = LoadGate(2, 1000)
    steps = [gate.judge(waiting, turn, DEADLINE, TURNS.__getitem__) for turn, waiting in ((10, 13), (20, 30), (24, 30))]
    assert steps == [1, 1, 2], "the 13 that waited at turn 10 had their turn by 23"
    assert gate.judge(0, 30, DEADLINE, TURNS.__getitem__) == 2, "30 waited at turn 24"
    assert [gate.judge(0, turn, DEADLINE, TURNS.__getitem__) for turn in (60, 70)] == [1, 0]


def test_it_comes_back_when_the_dearer_rung_would_keep_up() -> None:
    gate = LoadGate(2, 1000)
    assert judged(gate, 6) == [1]
    judged(gate, *[2] * 6)
    assert gate.step == 1
    assert judged(gate, 2) == [1], "2 turns of 10 ms are a fifth of the deadline"
    assert judged(gate, 1) == [0], "1 of them is a tenth"


def test_between_the_two_bounds_nothing_changes() -> None:
    """Every length of queue whose pressure lies between UP and DOWN, from either side."""
    between = [n for n in range(20) if UP <= n * TURNS[0] / DEADLINE <= DOWN]
    assert between == [2, 3, 4, 5]
    above, below = LoadGate(2, 1000), LoadGate(2, 1000)
    judged(below, 6, *[2] * 6)
    for _ in range(50):
        assert judged(above, *between) == [0] * 4
        assert judged(below, *between) == [1] * 4


def test_places_that_run_out_count_however_patient_callers_are() -> None:
    gate = LoadGate(2, 10)
    assert judged(gate, 5, 6, deadline=1e6) == [0, 1]
    judged(gate, *[3] * 6, deadline=1e6)
    assert judged(gate, 2, 1, deadline=1e6) == [1, 0]


def test_one_impatient_caller_drives_nobody_down() -> None:
    gate = LoadGate(1, 1000)
    judged(gate, *[0] * 50)
    assert judged(gate, 4, deadline=5.0) == [0], "the mean of the deadlines is still above 90 ms"
    for _ in range(100):
        judged(gate, 4, deadline=5.0)
    assert gate.step == 1, "all of them are impatient now"


def test_the_last_step_is_no_rung() -> None:
    gate = LoadGate(1, 10)
    judged(gate, *[10] * 100)
    assert gate.step == 1 == gate.steps


def test_no_rung_at_all_takes_a_longer_queue() -> None:
    gate = LoadGate(1, 1000)
    assert judged(gate, 6, 8) == [0, 0], "8 turns of 10 ms are 0.8 of the deadline"
    assert judged(gate, 9) == [1]


def test_a_constant_load_between_two_rungs_does_not_flap() -> None:
    """A queue simulated: 150 requests a second, of which the full rung sustains 100, the light one 400."""
    gate, turns = LoadGate(2, 1000), {0: 10.0, 1: 2.5, 2: 0.5}
    now, served, steps, waits = 0.0, 0, [], []
    arrivals = [i * 1000 / 150 for i in range(3000)]
    while served < len(arrivals):
        now = max(now, arrivals[served])
        waiting = sum(1 for each in arrivals[served + 1 : served + 200] if each <= now)
        steps += judged(gate, waiting, turns=turns, deadline=200.0)
        now += turns[steps[-1]]
        waits.append(now - arrivals[served])
        served += 1
    changes = sum(a != b for a, b in pairwise(steps))
    assert 2 not in steps
    assert 0.4 < steps.count(0) / len(steps) < 0.8, "at best 0.56: 10 x + 2.5 (1 - x) = 1000 / 150"
    assert changes < len(steps) / 10, "stretches of more than ten requests"
    assert max(waits) < 150.0
