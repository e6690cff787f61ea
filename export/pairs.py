"""Which of two ways is faster on this machine? Both run in turn, so that whatever else the machine does meets both."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

PAIRS = 48
WARM = 4
"""Pairs run before the first one counts: buffers are allocated, caches filled."""
MARGIN = 0.03
"""Smaller differences are no reason. On a busy machine a graph against itself came out between 0.95 and 1.05 of its own
time; asking for three of four pairs as well, none of 120 comparisons called it faster, none of 60 slower."""

Request = TypeVar("Request")


@dataclass(frozen=True, slots=True)
class Paired:
    """Times of a new way ÷ times of the old one, over pairs of runs on the same request."""

    ratio: float
    """The median."""
    lower: float
    upper: float
    """Three of four pairs are at or above the one, three of four at or below the other."""

    @property
    def is_faster(self) -> bool:
        """By more than the margin in the middle, and by something in three of four pairs."""
        return self.ratio <= 1 - MARGIN and self.upper < 1

    @property
    def is_slower(self) -> bool:
        """The reverse."""
        return self.ratio >= 1 + MARGIN and self.lower > 1


def compare(
    old: Callable[[Request], object],
    new: Callable[[Request], object],
    requests: Sequence[Request],
    clock: Callable[[], float] = time.perf_counter,
) -> Paired:
    """Run both on the same requests, one after the other, who goes first changing from pair to pair."""
    ratios = []
    for i in range(-WARM, PAIRS):
        request = requests[i % len(requests)]
        times = [clock()]
        for run in (old, new) if i % 2 else (new, old):
            run(request)
            times.append(clock())
        one, two = np.diff(times)
        if i >= 0:
            ratios.append(two / one if i % 2 else one / two)
    lower, middle, upper = (float(each) for each in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return Paired(middle, lower, upper)
