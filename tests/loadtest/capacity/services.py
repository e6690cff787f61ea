"""Load tests of services whose knee is arithmetic, through the real recorder, judge and summary, as files."""

import json
from pathlib import Path

import numpy as np

from loadtest.arrivals import constant, times
from loadtest.footprint import Footprint, Rung
from loadtest.knee import Knee, find_knee
from loadtest.outcome import Outcome, merge
from loadtest.recorder import Recorder
from loadtest.result import Result
from loadtest.slo import Slo
from tests.loadtest.outcomes import ANSWER

PROMISE = Slo(rate=50, p99_ms=40, error_rate=0.001, degraded_rate=0.01)
TURN_MS, REST_MS, AROUND_MS = 3.0, 1.0, 0.5
MIB = 1 << 20


def timing(turn_ms: float) -> str:
    return (
        f"features;dur=0.1, queue;dur=0.2, retrieval;dur={turn_ms / 2}, finerank;dur={turn_ms / 2}, total;dur={turn_ms}"
    )


def first_come(rate: float, seconds: float, seed: int, turn_ms: tuple[float, ...] = (TURN_MS,)) -> Outcome:
    """One server, one request after the other: Lindley's recursion. Each turn is one of `turn_ms`."""
    recorder, free = Recorder(0.0, 0.0, seconds), 0.0
    due = times(constant(rate, seconds), seed).tolist()
    turns = np.random.default_rng(seed + 1).choice(turn_ms, len(due)).tolist()
    for at, turn in zip(due, turns, strict=True):
        free = max(free, at) + (turn + REST_MS) / 1e3
        recorder.note(at, at, free + AROUND_MS / 1e3, 200, timing(turn), ANSWER)
    return merge([recorder.part(0.1)])


def without_pause(seconds: float = 4.0, turn_ms: tuple[float, ...] = (TURN_MS,)) -> Outcome:
    """The same server when it always has a request."""
    recorder, end = Recorder(0.0, 0.0, seconds), 0.0
    random = np.random.default_rng(5)
    while end < seconds:
        turn = float(random.choice(turn_ms))
        begun, end = end, end + (turn + REST_MS) / 1e3
        recorder.note(begun, begun, end, 200, timing(turn), ANSWER)
    return merge([recorder.part(0.3)])


def steps(turn_ms: tuple[float, ...], seconds: float) -> Knee:
    """What a load test would find."""
    capacity = 1e3 / (sum(turn_ms) / len(turn_ms) + REST_MS)
    return find_knee(lambda rate, _: first_come(rate, seconds, round(rate), turn_ms), capacity, PROMISE)


def true_knee(turn_ms: tuple[float, ...], requests: int = 80_000) -> float:
    """The rate at which p99 is what is promised, halved down to 1 % from the recursion itself."""
    random = np.random.default_rng(9)
    gaps, works = random.exponential(1.0, requests), random.choice(turn_ms, requests) + REST_MS
    low, high = 0.0, 1e3 / float(works.mean())
    while high - low > 0.01 * high:
        rate = (low + high) / 2
        waits, wait = [], 0.0
        for gap, work in zip((gaps * 1e3 / rate).tolist(), works.tolist(), strict=True):
            wait = max(wait - gap, 0.0)
            waits.append(wait)
            wait += work
        fine = np.percentile(np.array(waits) + works + AROUND_MS, 99) <= PROMISE.p99_ms
        low, high = (rate, high) if fine else (low, rate)
    return low


def load_test(path: Path, turn_ms: tuple[float, ...] = (TURN_MS,), seconds: float = 4.0) -> Path:
    """What `adrank loadtest --json` writes of that service."""
    result = Result(
        scenario="capacity",
        url="http://127.0.0.1:8000",
        bundle="arithmetic",
        slo=PROMISE,
        seed=1,
        stretches=[],
        knee=steps(turn_ms, seconds),
        saturated=without_pause(turn_ms=turn_ms),
        footprint=Footprint(
            workers=1,
            own_bytes=80 * MIB,
            mapped_bytes=50 * MIB,
            processor="an abacus",
            rungs=[Rung(name="full", expected_ms=1.5)],
        ),
    )
    path.write_text(json.dumps(result.summary()))
    return path
