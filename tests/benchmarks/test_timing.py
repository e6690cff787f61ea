import time
from functools import partial

import numpy as np

from benchmarks.timing import WARM_UP, interleaved, p50, p99, spread


def test_things_take_turns_and_neither_is_always_first() -> None:
    calls: list[str] = []
    times = interleaved({name: partial(calls.append, name) for name in "ab"}, rounds=4)
    assert calls == ["a"] * WARM_UP + ["b"] * WARM_UP + list("abbaabba")
    assert {name: len(each) for name, each in times.items()} == {"a": 4, "b": 4}


def test_times_are_milliseconds() -> None:
    times = interleaved({"sleep": partial(time.sleep, 0.002)}, rounds=3)["sleep"]
    assert (times >= 2.0).all()


def test_medians_and_tails() -> None:
    times = np.arange(1.0, 101.0)
    assert p50(times) == 50.5
    assert 99 <= p99(times) <= 100
    assert spread(times) == "25.8-75.2"
