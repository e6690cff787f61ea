"""The load generator counts what it should count."""

import re

import numpy as np
import pytest

from benchmarks.http.load import FEWEST, LoadError, ask, closed_loop, http_request, open_loop, poisson
from tests.benchmarks.http.small_server import Behaviour, small_server

REQUESTS = [http_request("/score", b"a" * (n + 1)) for n in range(3)]


def test_a_request_is_what_the_server_reads() -> None:
    behaviour = Behaviour()
    with small_server(behaviour) as address:
        assert ask(address, http_request("/score", b'{"ads": [1]}')) == b'{"bytes": 12}'
    assert behaviour.bodies == [b'{"ads": [1]}']


def test_the_closed_loop_keeps_every_connection_busy_and_uses_all_requests_in_turn() -> None:
    behaviour = Behaviour(delay_s=0.02)
    with small_server(behaviour) as address:
        measured = closed_loop(address, REQUESTS, connections=4, seconds=0.4, warm_up=0.1)
    assert behaviour.connections == 4
    assert measured.answered == len(behaviour.bodies)
    assert len(measured.latencies) < measured.answered, "the warm-up is not counted"
    assert measured.latencies.min() >= 20
    assert {len(body) for body in behaviour.bodies} == {1, 2, 3}
    # 4 connections, each answered every 20 ms and a little: never more than 200 a second
    assert measured.throughput <= 4 / 0.02
    assert measured.throughput == pytest.approx(len(measured.latencies) / measured.seconds)


def test_a_slow_server_is_asked_often_enough_to_say_something() -> None:
    with small_server(Behaviour(delay_s=0.02, one_at_a_time=True)) as address:
        measured = closed_loop(address, REQUESTS, connections=2, seconds=0.01, warm_up=0.0)
    assert FEWEST <= len(measured.latencies) <= FEWEST + 2


def test_the_open_loop_counts_from_the_intended_start() -> None:
    """A server that needs 20 ms for each, one at a time, gets 10 requests at once: they wait for each other, and their
    latencies say so, though there are only two connections."""
    behaviour = Behaviour(delay_s=0.02, one_at_a_time=True)
    with small_server(behaviour) as address:
        measured = open_loop(address, REQUESTS, rate=1.0, arrivals=np.zeros(10), connections=2)
    assert measured.answered == len(behaviour.bodies) == len(measured.latencies) == 10
    for place, latency in enumerate(sorted(measured.latencies), 1):
        assert latency >= 20 * place


def test_the_open_loop_keeps_to_the_rate() -> None:
    with small_server(Behaviour()) as address:
        measured = open_loop(address, REQUESTS, rate=100.0, arrivals=np.arange(1.0, 31.0))
    assert measured.seconds >= 0.3
    assert len(measured.latencies) == 30


def test_a_connection_that_was_closed_while_idle_is_opened_again() -> None:
    behaviour = Behaviour(idle_s=0.4)
    with small_server(behaviour) as address:
        measured = open_loop(address, REQUESTS, rate=1.0, arrivals=np.array([0.0, 1.4, 2.8]), connections=1)
    assert len(measured.latencies) == 3
    assert behaviour.connections >= 3


def test_arrivals_are_of_rate_one_and_the_same_each_time() -> None:
    arrivals = poisson(1000, seed=3)
    gaps = np.diff(arrivals, prepend=0.0)
    assert arrivals[-1] == pytest.approx(1000)
    assert (gaps > 0).all()
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # exponential
    assert (poisson(1000, seed=3) == arrivals).all()
    assert (poisson(1000, seed=4) != arrivals).any()


def test_an_answer_that_is_no_success_is_an_error_that_shows_it() -> None:
    with small_server(Behaviour(status=429)) as address:
        with pytest.raises(LoadError, match=re.escape('status 429: {"bytes": 1}')):
            closed_loop(address, REQUESTS, connections=1, seconds=0.2)
        with pytest.raises(LoadError, match="status 429"):
            open_loop(address, REQUESTS, rate=100.0, arrivals=np.arange(3.0))


def test_a_connection_that_is_cut_is_an_error() -> None:
    with (
        small_server(Behaviour(cut_after=2)) as address,
        pytest.raises(LoadError, match="closed the connection with a request under way"),
    ):
        closed_loop(address, REQUESTS, connections=1, seconds=5.0)
