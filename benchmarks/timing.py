"""Timing of things that are compared: they take turns, so that whatever else the machine does hits all of them."""

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]
"""Milliseconds, one a call."""
WARM_UP = 3


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Call each function once a round; milliseconds[rounds] by name, in rounds that pair up."""
    for function in work.values():
        for _ in range(WARM_UP):
            function()
    times = {name: np.empty(rounds) for name in work}
    names = list(work)
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):  # neither always runs on the other's warm cache
            started = perf_counter()
            work[name]()
            times[name][i] = (perf_counter() - started) * 1e3
    return times


def p50(times: Times) -> float:
    """The median."""
    return float(np.median(times))


def p99(times: Times) -> float:
    """The 99th percentile."""
    return float(np.percentile(times, 99))


def spread(times: Times) -> str:
    """Where the middle half lies."""
    return f"{np.percentile(times, 25):.3g}-{np.percentile(times, 75):.3g}"
