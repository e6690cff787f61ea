"""The knee of services whose knee is known."""

import pytest

from loadtest.knee import Knee, find_knee
from loadtest.outcome import Outcome
from loadtest.slo import Slo, Verdict
from tests.loadtest.outcomes import one_server, outcome

PROMISE = Slo(rate=1, p99_ms=50)


def test_the_knee_of_one_server() -> None:
    """200 requests/s at most. Waiting stays below 45 ms for 99 % until about 0.8 of that: the tail of M/D/1
    falls by exp(-2 (1 - ρ) / ρ) with each 5 ms."""
    knee = find_knee(lambda rate, _: one_server(200, rate, 30), 200, PROMISE)
    assert knee.rate is not None
    assert knee.bounded
    assert 135 < knee.rate < 180
    rates = [step.rate for step in knee.steps]
    assert rates == sorted(rates)
    verdicts = {step.rate: step.judged.verdict for step in knee.steps}
    assert all(verdict is Verdict.PASS for rate, verdict in verdicts.items() if rate <= knee.rate)
    assert verdicts[min(rate for rate in rates if rate > knee.rate)] is Verdict.FAIL
    assert knee.text() == f"the knee is at {knee.rate:.0f} requests/s"


def test_a_step_that_fails_once_is_tried_again() -> None:
    asked: list[str] = []

    def measure(rate: float, name: str) -> Outcome:
        asked.append(name)
        return outcome(lambda i: 0.2 if len(asked) == 2 else 0.001)

    knee = find_knee(measure, 100, PROMISE)
    assert asked[1:3] == ["50/s", "50/s, again"]
    assert knee.rate == 120
    assert not knee.bounded
    assert knee.text() == "the knee is at least 120 requests/s"


def test_a_generator_that_gives_up_first_bounds_nothing() -> None:
    knee = find_knee(lambda rate, _: outcome(lambda i: 0.001, processor=0.99 if rate > 60 else 0.1), 100, PROMISE)
    assert knee.rate is not None
    assert 50 <= knee.rate <= 60
    assert not knee.bounded


def test_below_the_first_step_it_goes_down() -> None:
    knee = find_knee(lambda rate, _: outcome(lambda i: 0.2 if rate > 8 else 0.001), 100, PROMISE)
    assert knee.rate == pytest.approx(7.5)


def test_no_knee_at_all() -> None:
    knee: Knee = find_knee(lambda rate, _: outcome(lambda i: 0.2), 100, PROMISE)
    assert (knee.rate, knee.bounded) == (None, True)
    assert knee.text().startswith("no knee: at ")
