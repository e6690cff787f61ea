"""What the benchmark of swaps counts."""

import json

import numpy as np
import pytest

from benchmarks.report import Report
from benchmarks.swap import SETTLE_S, Answer, Ranking, judge, tell

EXPECTED: dict[str, list[Ranking]] = {"a": [[(1, 0.5), (2, 0.4)]], "b": [[(2, 0.6), (1, 0.1)]]}


def answer(
    started: float, ms: float, bundle_id: str = "a", of: str = "a", status: int = 200, degraded: tuple[str, ...] = ()
) -> Answer:
    ads = [{"ad_id": ad_id, "pctr": pctr} for ad_id, pctr in EXPECTED[of][0]]
    return Answer(
        0, started, ms, status, json.dumps({"bundle_id": bundle_id, "ads": ads, "degraded": degraded}).encode()
    )


def test_an_answer_that_is_not_its_bundles_is_mixed() -> None:
    judged = judge(
        [answer(0, 1), answer(0, 1, "b", "b"), answer(0, 1, "b", "a"), answer(0, 1, status=503)], EXPECTED, []
    )
    assert (judged.mixed, judged.failed) == (1, 1)


def test_a_degraded_answer_is_not_mixed_but_counted() -> None:
    judged = judge([answer(0, 1, "b", "a", degraded=("user_features: timeout",))], EXPECTED, [])
    assert (judged.mixed, judged.degraded, judged.failed) == (0, 1, 0)


def test_a_request_belongs_to_a_swap_by_its_intended_start() -> None:
    starts = [0.9, 1.0, 2.0 + SETTLE_S, 2.01 + SETTLE_S]
    judged = judge([answer(start, i) for i, start in enumerate(starts)], EXPECTED, [(1.0, 2.0)])
    assert (judged.swapping.tolist(), judged.steady.tolist()) == ([1, 2], [0, 3])


def test_figures_are_ratios_of_the_same_run() -> None:
    report = Report("swap")
    judged = judge([answer(0, 2.0), answer(5, 4.0)], EXPECTED, [(4.0, 6.0), (10.0, 11.0)])
    tell(report, judged, [(4.0, 6.0), (10.0, 11.0)], 100.0, [50.0, 100.0, 101.0, 102.0], 200)
    figures = report.figures
    assert (figures["swap.p99_ratio"], figures["swap.p50_ratio"]) == (2.0, 2.0)
    assert figures["swap.rss_growth"] == pytest.approx(0.02)
    assert (figures["swap.seconds"], figures["swap.longest_seconds"]) == (1.5, 2.0)
    assert np.isfinite(list(figures.values())).all()
