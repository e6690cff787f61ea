"""The verdict is right on outcomes that are known, and a bad file is one line."""

from pathlib import Path

import pytest

from loadtest.command import SLO
from loadtest.outcome import Outcome
from loadtest.saturation import complaints
from loadtest.slo import Slo, SloError, Verdict, judge, read_slo, table
from tests.loadtest.outcomes import one_server, outcome

PROMISE = Slo(rate=100, p50_ms=12, p95_ms=25, p99_ms=40, error_rate=0.01, degraded_rate=0.01)


def test_what_holds_passes() -> None:
    judged = judge(outcome(lambda i: 0.010), PROMISE)
    assert (judged.verdict, judged.reasons) == (Verdict.PASS, [])
    assert [row.name for row in judged.rows] == ["p50", "p95", "p99", "errors", "degraded", "rate"]
    assert "does not hold" not in table(judged)


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (outcome(lambda i: 0.030), ["p50", "p95"]),
        (outcome(lambda i: 0.050 if i % 50 == 0 else 0.001), ["p99"]),
        (outcome(lambda i: 0.010, statuses=[200] * 49 + [429]), ["errors", "rate"]),
        (outcome(lambda i: 0.010, degraded=20), ["degraded"]),
        (outcome(lambda i: 0.010, statuses=["TimeoutError"]), ["p50", "p95", "p99", "errors", "rate"]),
        (one_server(90, 100, 20), ["p50", "p95", "p99", "rate"]),
    ],
)
def test_what_does_not_hold_fails_and_is_named(found: Outcome, names: list[str]) -> None:
    judged = judge(found, PROMISE)
    assert judged.verdict is Verdict.FAIL
    assert [row.name for row in judged.rows if not row.holds] == names
    assert table(judged).count("does not hold") == len(names)


def test_a_generator_that_was_late_or_busy_gives_no_verdict() -> None:
    for starved, words in (
        (outcome(lambda i: 0.011, lag_s=0.005), "sent more than 5.0 ms after they were due, 4.0 allowed"),
        (outcome(lambda i: 0.010, processor=0.95), "used 95% of a core"),
    ):
        judged = judge(starved, PROMISE)
        assert judged.verdict is Verdict.NONE
        assert words in " ".join(judged.reasons)
        assert words in table(judged)


def test_how_late_is_too_late_follows_the_promise() -> None:
    late = outcome(lambda i: 0.011, lag_s=0.005)
    assert complaints(late, 60) == []
    assert complaints(late, 40) != []
    assert complaints(outcome(lambda i: 0.001, lag_s=0.0008), 2) == [], "a millisecond is always allowed"


def test_the_projects_own_file_is_read() -> None:
    assert read_slo(SLO).rate == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate: 10", "p99_ms: Field required"),
        ("rate: 0\np99_ms: 3", "rate: Input should be greater than 0"),
        ("rate: 1\np99_ms: 3\np98_ms: 2", "p98_ms: Extra inputs"),
        ("rate: [", "slo.yaml: "),
        ("", "the file: Input should be"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "slo.yaml").write_text(text)
    with pytest.raises(SloError) as refused:
        read_slo(tmp_path / "slo.yaml")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
