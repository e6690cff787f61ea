"""When requests are due: seconds from the start, as a Poisson process whose rate follows a curve.

A curve is a list of (second, requests a second); between two points the rate is linear, and two points at the same
second are a jump. The number of arrivals is the area under the curve, rounded: a Poisson process given its count,
so that every seed offers exactly the stated rate.
"""

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Curve = list[tuple[float, float]]
Seconds = npt.NDArray[np.float64]


def constant(rate: float, seconds: float) -> Curve:
    """The same rate all the time."""
    return [(0.0, rate), (seconds, rate)]


def steps(rates: list[float], seconds: float) -> Curve:
    """Each rate for `seconds`."""
    return [point for i, rate in enumerate(rates) for point in ((i * seconds, rate), ((i + 1) * seconds, rate))]


def burst(rate: float, peak: float, seconds: float, at: float, length: float) -> Curve:
    """`rate`, but `peak` from `at` on for `length` seconds, without warning."""
    return [(0.0, rate), (at, rate), (at, peak), (at + length, peak), (at + length, rate), (seconds, rate)]


def diurnal(low: float, high: float, seconds: float, points: int = 48) -> Curve:
    """A day pressed into `seconds`: a sine that begins and ends at `low`."""
    turn = [i / points for i in range(points + 1)]
    return [(x * seconds, low + (high - low) * (1 - math.cos(2 * math.pi * x)) / 2) for x in turn]


def flash_crowd(rate: float, peak: float, seconds: float, at: float, rise: float, fall: float) -> Curve:
    """`rate`, which from `at` on grows to `peak` within `rise` seconds and is gone within `fall`."""
    return [(0.0, rate), (at, rate), (at + rise, peak), (at + rise + fall, rate), (seconds, rate)]


def expected(curve: Curve, begin: float = 0.0, end: float = math.inf) -> float:
    """The area under the curve from `begin` to `end`: requests. ValueError for a curve that goes back or below 0."""
    for (t0, r0), (t1, r1) in pairwise(curve):
        if t1 < t0 or min(r0, r1) < 0:
            raise ValueError(f"a curve must go forward and not below 0: ({t0:g} s, {r0:g}/s) to ({t1:g} s, {r1:g}/s)")
    area = 0.0
    for (t0, r0), (t1, r1) in pairwise(curve):
        lower, upper = max(t0, begin), min(t1, end)
        if upper > lower:
            middle = r0 + (r1 - r0) * ((lower + upper) / 2 - t0) / (t1 - t0)
            area += middle * (upper - lower)
    return area


def times(curve: Curve, seed: int) -> Seconds:
    """float64[n], ascending: when each request is due."""
    n = round(expected(curve))
    points = np.array(curve, dtype=np.float64)
    t, rate = points[:, 0], points[:, 1]
    lengths = np.diff(t)
    areas = (rate[1:] + rate[:-1]) / 2 * lengths
    until = np.concatenate([[0.0], np.cumsum(areas)])
    drawn = np.sort(np.random.default_rng(seed).uniform(0.0, until[-1], n))
    piece = np.clip(np.searchsorted(until, drawn, side="right") - 1, 0, len(areas) - 1)
    rest, r0 = drawn - until[piece], rate[piece]
    slope = np.diff(rate)[piece] / lengths[piece]
    # r0·x + slope·x²/2 = rest, solved for x without a difference of nearly equal numbers
    root = np.sqrt(np.maximum(r0**2 + 2 * rest * slope, 0.0))
    return np.asarray(t[piece] + 2 * rest / np.maximum(r0 + root, 1e-300), dtype=np.float64)
