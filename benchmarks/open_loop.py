"""Requests that arrive at their times, whether or not the one before is done, for a single worker thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter, sleep

import numpy as np
import numpy.typing as npt

from benchmarks.timing import Times

START_S = 0.05
"""Until the first arrival."""


def saturation(work: Callable[[], object], seconds: float) -> float:
    """How often a second one worker thread does it, one after the other."""
    with ThreadPoolExecutor(1) as worker:
        return worker.submit(_again_and_again, work, seconds).result()


def _again_and_again(work: Callable[[], object], seconds: float) -> float:
    started, done = perf_counter(), 0
    while (elapsed := perf_counter() - started) < seconds:
        work()
        done += 1
    return done / elapsed


def even(rate: float, count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Seconds of `count` arrivals, all as far apart as `rate` a second are, whatever the seed."""
    del seed
    return np.arange(count) / rate


def poisson(rate: float, count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Seconds of `count` arrivals that know nothing of each other."""
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


def latencies(work: Callable[[], object], arrivals: npt.NDArray[np.float64]) -> Times:
    """Milliseconds from each intended arrival until its work is done: waiting counts, however late it was begun."""
    ended = np.empty(len(arrivals))

    def one(i: int) -> None:
        work()
        ended[i] = perf_counter()

    with ThreadPoolExecutor(1) as worker:
        start = perf_counter() + START_S
        for i, arrival in enumerate((start + arrivals).tolist()):
            if (wait := arrival - perf_counter()) > 0:
                sleep(wait)
            worker.submit(one, i)
    return (ended - start - arrivals) * 1e3
