"""Waiting counts from the intended arrival. Durations are long and bounds wide: a busy machine must not matter."""

from time import sleep

import numpy as np

from benchmarks.open_loop import even, latencies, poisson, saturation


def test_waiting_for_the_request_before_counts() -> None:
    times = latencies(lambda: sleep(0.05), np.zeros(4))
    assert (np.diff(times) > 40).all(), "each waits for those before it"
    assert times[0] >= 50
    assert times[3] >= 200


def test_arrivals_far_apart_do_not_wait_for_each_other() -> None:
    times = latencies(lambda: sleep(0.01), even(4.0, 3))
    assert (times >= 10).all()


def test_arrivals_have_their_rate() -> None:
    assert even(10.0, 3).tolist() == [0.0, 0.1, 0.2]
    drawn = poisson(100.0, 20_000)
    assert abs(drawn[-1] / 200 - 1) < 0.05
    assert (np.diff(drawn) > 0).all()
    gaps = np.diff(drawn)
    assert abs(gaps.std() / gaps.mean() - 1) < 0.05


def test_saturation_is_how_often_it_can_be_done() -> None:
    assert 1 < saturation(lambda: sleep(0.01), 0.3) <= 100
