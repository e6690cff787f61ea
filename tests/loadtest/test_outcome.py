"""Histograms add up over processes, within their precision."""

import numpy as np
import pytest

from loadtest.histograms import HIGHEST_US, Histogram
from loadtest.outcome import between, merge
from loadtest.recorder import Recorder
from tests.loadtest.outcomes import ANSWER, TIMING, exact, outcome


def test_percentiles_are_within_a_thousandth() -> None:
    values = np.random.default_rng(0).lognormal(2, 1, 5000).tolist()
    whole = Histogram.of(values)
    for percent in (1, 50, 95, 99, 99.9):
        assert exact(values, percent - 0.05) * 0.999 <= whole.percentile(percent)
        assert whole.percentile(percent) <= exact(values, percent + 0.05) * 1.001
    assert whole.mean == pytest.approx(np.mean(values), rel=2e-3)
    assert whole.maximum == pytest.approx(max(values), rel=2e-3)


def test_parts_add_up_to_the_whole() -> None:
    values = np.random.default_rng(1).exponential(5, 3000).tolist()
    sum_ = Histogram.decode(Histogram.of(values[:1000]).encode())
    sum_.add(Histogram.decode(Histogram.of(values[1000:]).encode()))
    whole = Histogram.of(values)
    assert sum_.count == 3000
    assert [sum_.percentile(p) for p in (50, 99)] == [whole.percentile(p) for p in (50, 99)]


def test_values_out_of_range_count_as_its_ends() -> None:
    ends = Histogram.of([-1.0, 1e9])
    assert ends.count == 2
    assert ends.maximum == pytest.approx(HIGHEST_US / 1e3, rel=1e-3)
    assert Histogram().percentile(99) == Histogram().mean == Histogram().maximum == 0.0


def test_latency_counts_from_the_intended_start() -> None:
    late = outcome(lambda i: 0.050, lag_s=0.030)
    assert late.latency.percentile(50) == pytest.approx(50, rel=1e-2)
    assert late.uncorrected.percentile(50) == pytest.approx(20, rel=1e-2)
    assert late.lag.percentile(50) == pytest.approx(30, rel=1e-2)


def test_errors_and_degraded_answers_are_counted() -> None:
    found = outcome(lambda i: 0.01, statuses=(200, 200, 429, "TimeoutError"), degraded=10)
    assert found.error_rate == pytest.approx(0.5)
    assert found.statuses == {"200": 500, "429": 250, "TimeoutError": 250}
    assert found.latency.count == 500, "refusals are fast: they must not count as latencies"
    assert found.degraded == 6
    assert found.reasons == {"finerank: deadline": 6}


def test_server_timing_becomes_stages() -> None:
    stages = outcome(lambda i: 0.01).stages
    assert {name: round(each.percentile(50), 1) for name, each in stages.items()} == {
        "features": 0.2,
        "queue": 0.5,
        "finerank": 1.0,
        "total": 2.0,
        "network": 8.0,
        "work": 1.5,
        "turn": 1.0,
    }


def test_the_warm_up_and_what_never_ended() -> None:
    recorder = Recorder(0.0, 5.0, 10.0)
    for second in range(10):
        recorder.note(second, second, second + 0.1, 200, TIMING, ANSWER)
    recorder.lost(2)
    found = merge([recorder.part(0.1), recorder.part(0.3)])
    assert (found.offered, found.answered, found.seconds, found.processor) == (14, 10, 5.0, 0.3)
    assert found.achieved_rate == 2.0
    assert found.statuses == {"200": 10, "no answer": 4}
    assert [each.at for each in found.windows] == list(range(10))
    assert [each.offered for each in found.windows] == [2] * 10


def test_a_part_of_the_time() -> None:
    found = outcome(lambda i: 0.010 if i < 500 else 0.100, rate=100, seconds=10)
    after = between(found, 5.5, 9.9)
    assert after.seconds == 3.0
    assert after.latency.percentile(1) == pytest.approx(100, rel=0.02)
    assert between(found, 0, 4).latency.percentile(99) == pytest.approx(10, rel=0.02)
    with pytest.raises(ValueError, match="no whole second"):
        between(found, 3.2, 3.8)
    with pytest.raises(ValueError, match="no process"):
        merge([])
