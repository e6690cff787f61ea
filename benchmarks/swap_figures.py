"""What the answers of a run of swaps under load are worth: failures, mixed answers, and the tail during swaps."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.report import Report, Table
from benchmarks.swap_load import Answer

SETTLE_S = 0.5
"""After the new bundle is served: the old one is freed."""
RESAMPLES = 2_000
LEVEL = 0.95

Ranking = list[tuple[int, float]]
"""Ads and their pCTR, best first."""
Window = tuple[float, float]
"""From the change of the state to its being served, in seconds of the monotonic clock."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the answers of one run of load are worth."""

    failed: int
    mixed: int
    """Successes that are not what the bundle they name answers by itself."""
    degraded: int
    """Successes that say that they are degraded: a user was not read in time."""
    ms: npt.NDArray[np.float64]
    during: npt.NDArray[np.bool_]
    """Which of them belong to a swap."""
    block: npt.NDArray[np.int64]
    """Of which swap: from its beginning to that of the next one. What comes before the first belongs to it."""

    @property
    def swapping(self) -> npt.NDArray[np.float64]:
        """Milliseconds of requests during swaps."""
        return self.ms[self.during]

    @property
    def steady(self) -> npt.NDArray[np.float64]:
        """Milliseconds of all others."""
        return self.ms[~self.during]


def judge(answers: Sequence[Answer], expected: dict[str, list[Ranking]], windows: Sequence[Window]) -> Judged:
    """Count failures and mixed answers, and part the latencies."""
    failed = sum(answer.status != 200 for answer in answers)
    mixed = degraded = 0
    for answer in answers:
        if answer.status == 200:
            said = json.loads(answer.body)
            if said["degraded"]:  # says itself that it is not what the bundle would answer
                degraded += 1
            else:
                mixed += ranking(said) != expected[said["bundle_id"]][answer.request]
    started = np.array([answer.started for answer in answers])
    during = np.zeros(len(answers), dtype=np.bool_)
    for asked, served in windows:
        during |= (started >= asked) & (started <= served + SETTLE_S)
    begun = np.searchsorted([asked for asked, _ in windows], started, side="right") - 1
    return Judged(failed, mixed, degraded, np.array([answer.ms for answer in answers]), during, np.maximum(begun, 0))


def ranking(body: dict[str, list[dict[str, float]]]) -> Ranking:
    """The ads of an answer."""
    return [(int(ad["ad_id"]), ad["pctr"]) for ad in body["ads"]]


def ratio(judged: Judged, q: float) -> float:
    """A quantile during swaps ÷ that of the steady state."""
    return float(np.quantile(judged.swapping, q) / np.quantile(judged.steady, q))


def interval(judged: Judged, q: float) -> tuple[float, float]:
    """Of that ratio, at LEVEL: a bootstrap over swaps, each with the steady state after it. Requests are no sample of
    their own, because those that wait in one queue are late together. A percentile interval (Efron and Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13)."""
    random = np.random.default_rng(0)
    parts = [
        [judged.ms[(judged.block == each) & (judged.during == during)] for during in (True, False)]
        for each in np.unique(judged.block)
    ]
    found = []
    for _ in range(RESAMPLES):
        drawn = [parts[i] for i in random.integers(0, len(parts), len(parts))]
        swapping, steady = (np.concatenate(each) for each in zip(*drawn, strict=True))
        if len(swapping) and len(steady):
            found.append(np.quantile(swapping, q) / np.quantile(steady, q))
    low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) if found else (np.nan, np.nan)
    return float(low), float(high)


def tell(
    report: Report,
    case: str,
    prefix: str,
    judged: Judged,
    windows: Sequence[Window],
    late: Sequence[float],
    rate: float,
) -> None:
    """Figures under `prefix`, and a table."""
    seconds = [served - asked for asked, served in windows]
    low, high = interval(judged, 0.99)
    rows: list[tuple[str | int | float, ...]] = [
        (name, len(ms), *(float(np.quantile(ms, q)) for q in (0.5, 0.95, 0.99)), float(ms.max()))
        for name, ms in (("during swaps", judged.swapping), ("steady", judged.steady))
    ]
    report.figures |= {
        f"{prefix}.failed": judged.failed,
        f"{prefix}.mixed": judged.mixed,
        f"{prefix}.degraded": judged.degraded,
        f"{prefix}.p50_ratio": ratio(judged, 0.5),
        f"{prefix}.p99_ratio": ratio(judged, 0.99),
        f"{prefix}.p99_ratio_low": low,
        f"{prefix}.p99_ratio_high": high,
        f"{prefix}.p99_ms": float(np.quantile(judged.swapping, 0.99)),
        f"{prefix}.steady_p99_ms": float(np.quantile(judged.steady, 0.99)),
        f"{prefix}.requests": len(judged.ms),
        f"{prefix}.requests_during": int(judged.during.sum()),
        f"{prefix}.seconds": float(np.median(seconds)),
        f"{prefix}.longest_seconds": max(seconds),
        f"{prefix}.late_p99_ms": float(np.quantile(late, 0.99)),
        f"{prefix}.rate": rate,
    }
    title = (
        f"{case}: {len(windows)} swaps under {rate:.0f} requests a second, milliseconds; "
        f"p99 ratio {ratio(judged, 0.99):.2f} ({low:.2f} to {high:.2f}), "
        f"p99 of the load's own lateness {np.quantile(late, 0.99):.2f}"
    )
    report.tables.append(Table(title, ("requests", "number", "p50", "p95", "p99", "longest"), rows))
