"""Outcomes of services that are a line of arithmetic, made by the real recorder."""

import json
from collections.abc import Callable, Sequence

import numpy as np

from loadtest.arrivals import constant, times
from loadtest.outcome import Outcome, merge
from loadtest.recorder import Recorder

ANSWER = json.dumps({"degraded": [], "bundle_id": "one"}).encode()
DEGRADED = json.dumps({"degraded": ["finerank: deadline"], "bundle_id": "one"}).encode()
TIMING = 'features;dur=0.200, queue;dur=0.500, finerank;desc="light";dur=1.000, total;dur=2.000'


def outcome(
    latency_s: Callable[[int], float],
    rate: float = 100,
    seconds: float = 10,
    lag_s: float = 0.0,
    processor: float = 0.2,
    statuses: Sequence[int | str] = (200,),
    degraded: int = 0,
) -> Outcome:
    """Request i takes `latency_s(i)`; statuses are taken in turn; the first `degraded` ones are."""
    recorder = Recorder(0.0, 0.0, seconds)
    for i, due in enumerate(times(constant(rate, seconds), 1).tolist()):
        status = statuses[i % len(statuses)]
        body = DEGRADED if i < degraded else ANSWER
        recorder.note(due, due + lag_s, due + latency_s(i), status, TIMING, body if status == 200 else b"")
    return merge([recorder.part(processor)])


def one_server(capacity: float, rate: float, seconds: float) -> Outcome:
    """Of a service that works off one request after the other, each in 1 / capacity seconds."""
    recorder, free = Recorder(0.0, 0.0, seconds), 0.0
    for due in times(constant(rate, seconds), int(rate)).tolist():
        free = max(free, due) + 1 / capacity
        recorder.note(due, due, free, 200, TIMING, ANSWER)
    return merge([recorder.part(0.1)])


def exact(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent, method="inverted_cdf"))
