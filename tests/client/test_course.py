"""When a call is sent again: by rule, within the deadline, and never more than a tenth over what was asked."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.calls import Call, Lost, Received, events_call, rank_call
from client.course import (
    FIRST_PAUSE_S,
    LONGEST_S,
    MOST_ATTEMPTS,
    MOST_SAVED,
    RESERVE_S,
    Course,
    RetryBudget,
    Wait,
    pause_s,
)
from client.errors import (
    ArgumentError,
    ClientError,
    DeadlineError,
    ProblemError,
    UnreachableError,
    UnreadableAnswerError,
)
from client.schemas import RankResponse
from tests.client.servers import FINE, problem

CALL = rank_call(user_id="anna")
ANSWERED = Received(200, {"server-timing": 'queue;dur=0.5, finerank;desc="light";dur=1.25, total;dur=2'}, FINE.body)
BROKEN = Lost("reset", late=False, maybe_taken=True)
REFUSED = Received(503, {}, problem("not_ready"))


def shed(seconds: str) -> Received:
    return Received(429, {"retry-after": seconds}, problem("overloaded"))


def course(
    budget: RetryBudget, deadline_ms: float | None = None, call: Call[RankResponse] = CALL
) -> Course[RankResponse]:
    return Course(call, "http://h", deadline_ms, budget, now=100.0)


def saved(retries: float) -> RetryBudget:
    budget = RetryBudget()
    for _ in range(round(retries * 10)):
        budget.earn()
    return budget


@pytest.mark.parametrize(
    ("error", "repeatable", "attempt", "draw", "pause"),
    [
        (UnreachableError("x"), True, 1, 0.0, FIRST_PAUSE_S),
        (UnreachableError("x"), True, 2, 0.0, 2 * FIRST_PAUSE_S),
        (UnreachableError("x"), True, 1, 0.5, 0.75 * FIRST_PAUSE_S),
        (UnreachableError("x"), True, MOST_ATTEMPTS, 0.0, None),
        (UnreachableError("x", maybe_taken=True), True, 1, 0.0, FIRST_PAUSE_S),
        (UnreachableError("x", maybe_taken=True), False, 1, 0.0, None),
        (UnreachableError("x"), False, 1, 0.0, FIRST_PAUSE_S),
        (DeadlineError("x"), True, 1, 0.0, None),
        (UnreadableAnswerError("x"), True, 1, 0.0, None),
        (ProblemError("x", status=429, code="", retry_after_s=2.0), True, 1, 0.0, 2.0),
        (ProblemError("x", status=503, code="", retry_after_s=2.0), True, 1, 0.5, 2.1),
        (ProblemError("x", status=503, code=""), True, 1, 0.0, FIRST_PAUSE_S),
        (ProblemError("x", status=503, code="", maybe_taken=True), False, 1, 0.0, None),
        (ProblemError("x", status=500, code="internal"), True, 1, 0.0, None),
        (ProblemError("x", status=422, code="invalid_request"), True, 1, 0.0, None),
    ],
)
def test_what_is_tried_again_and_when(
    error: ClientError, repeatable: bool, attempt: int, draw: float, pause: float | None
) -> None:
    assert pause_s(error, repeatable=repeatable, attempt=attempt, draw=draw) == pytest.approx(pause)


def test_an_answer_says_how_it_came() -> None:
    run = course(saved(1), 1000)
    run.sending(100.0)
    wait = run.judge(REFUSED, 100.1)
    assert isinstance(wait, Wait)
    run.sending(100.2)
    answer = run.judge(ANSWERED, 100.5)
    assert isinstance(answer, RankResponse)
    assert answer.exchange.attempts == 2
    assert answer.exchange.ms == pytest.approx(500)
    assert answer.exchange.timings == {"queue": 0.5, "finerank": 1.25, "total": 2.0}
    assert answer.exchange.request_id == run.request_id


def test_the_service_is_told_what_is_left_less_the_way() -> None:
    run = course(saved(1), 1000)
    first = run.sending(100.0)
    assert json.loads(first.content or b"")["deadline_ms"] == 1000 - RESERVE_S * 1e3
    assert (first.left_s, first.end) == (1.0, 101.0)
    run.judge(REFUSED, 100.3)
    second = run.sending(100.4)
    assert json.loads(second.content or b"")["deadline_ms"] == pytest.approx(595, abs=1)
    assert second.end == 101.0


@pytest.mark.parametrize(("deadline_ms", "told"), [(2, 1), (0.5, 1), (7.9, 2), (1e6, 10_000)])
def test_it_is_told_what_it_takes(deadline_ms: float, told: int) -> None:
    sent = course(RetryBudget(), deadline_ms).sending(100.0)
    assert json.loads(sent.content or b"")["deadline_ms"] == told


def test_without_a_deadline_the_services_own_holds() -> None:
    sent = course(RetryBudget()).sending(100.0)
    assert json.loads(sent.content or b"") == {"user_id": "anna"}
    assert sent.left_s == LONGEST_S


@pytest.mark.parametrize("deadline_ms", [0, -1, math.nan, math.inf])
def test_a_deadline_that_is_no_time_is_refused(deadline_ms: float) -> None:
    with pytest.raises(ArgumentError, match="deadline_ms is"):
        course(RetryBudget(), deadline_ms)


def test_nothing_is_sent_after_the_deadline() -> None:
    run = course(saved(1), 1000)
    with pytest.raises(DeadlineError) as caught:
        run.sending(101.0)
    assert (caught.value.attempts, caught.value.maybe_taken) == (0, False)


@pytest.mark.parametrize(("seconds", "again"), [("0", True), ("1", True), ("2", False)])
def test_a_wait_that_does_not_fit_is_not_begun(seconds: str, again: bool) -> None:
    budget = saved(1)
    run = course(budget, 1800)
    run.sending(100.0)
    if again:
        wait = run.judge(shed(seconds), 100.1)
        assert isinstance(wait, Wait)
        assert float(seconds) <= wait.seconds <= 1.1 * float(seconds)
    else:
        with pytest.raises(ProblemError):
            run.judge(shed(seconds), 100.1)
        assert budget.take(), "what was not sent again costs nothing"


def test_events_go_their_own_way() -> None:
    run = Course(events_call(events=[]), "http://h", 1000, saved(1), 100.0)
    assert json.loads(run.sending(100.0).content or b"") == {"events": []}
    with pytest.raises(UnreachableError):
        run.judge(BROKEN, 100.1)


def test_a_retry_is_earned_by_ten_calls() -> None:
    budget = RetryBudget()
    assert not budget.take()
    for _ in range(9):
        budget.earn()
    assert not budget.take()
    budget.earn()
    assert budget.take()
    assert not budget.take()


def test_only_so_many_are_saved_up_and_a_retry_that_fails_costs_all() -> None:
    budget = saved(1000)
    assert sum(budget.take() for _ in range(100)) == MOST_SAVED
    budget = saved(5)
    run = course(budget)
    run.sending(100.0)
    run.judge(BROKEN, 100.1)
    run.sending(100.2)
    with pytest.raises(UnreachableError):
        run.judge(BROKEN, 100.3)
    assert not budget.take()


def test_good_times_do_not_pay_for_bad_ones() -> None:
    """With retries saved up, a service that goes down gets one of them, and then a tenth."""
    budget, sent = saved(1000), 0
    for _ in range(100):
        run = course(budget)
        judged: Wait | None = Wait(0.0)
        while judged is not None:
            run.sending(100.0)
            sent += 1
            judged = waits(run)
    assert 100 < sent <= 100 + MOST_ATTEMPTS - 1 + 10


def waits(run: Course[RankResponse]) -> Wait | None:
    """What a broken connection comes to: None is the end."""
    try:
        judged = run.judge(BROKEN, 100.0)
    except UnreachableError:
        return None
    assert isinstance(judged, Wait)
    return judged


@given(st.lists(st.sampled_from([ANSWERED, BROKEN, REFUSED, shed("0"), Received(500, {}, b"")]), max_size=300))
def test_over_a_clients_life_at_most_a_tenth_more_is_sent(outcomes: list[Received | Lost]) -> None:
    budget, sent, calls = RetryBudget(), 0, 0
    left = iter(outcomes)
    for found in left:
        run, calls, attempts = course(budget), calls + 1, 0
        judged: object = None
        next_found: Received | Lost | None = found
        while next_found is not None:
            run.sending(100.0)
            sent, attempts = sent + 1, attempts + 1
            try:
                judged = run.judge(next_found, 100.0)
            except ClientError:
                break
            next_found = next(left, ANSWERED) if isinstance(judged, Wait) else None
        assert attempts <= MOST_ATTEMPTS
        assert sent <= 1.1 * calls + 1e-9
