"""From the streams to files: nothing is lost and nothing is there twice, wherever the collector is cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from outcomes.collector import Collector, Timing
from outcomes.errors import OutcomesError
from outcomes.segments import segments
from outcomes.streams import Id, RedisDownError, Streams
from outcomes.tables import path_of, read_table
from tests.docs.pages import ROOT
from tests.outcomes.feeding import (
    EVENTS,
    LIVING,
    NOON,
    PREFIX,
    SERVED,
    Feed,
    answer_fields,
    event,
    pairs,
    raw_ids,
    shadow_json,
)

MINUTE = 60_000
TIMING = Timing(flush_s=0.0, span_ms=10 * MINUTE, window_ms=30 * MINUTE)


def collect(collector: Collector) -> None:
    """Until the streams are empty."""
    while collector.step():
        pass
    collector.flush()


def rows(out: Path, table: str, *columns: str) -> list[Any]:
    return read_table(out, table).select(columns).rows()


def test_answers_and_events_become_tables_and_leave_redis(feed: Feed, out: Path) -> None:
    feed.answer(NOON, "r1", [7, 8], arms={"e": "x"})
    feed.answer(NOON + 1, "r2", [7], user="bob", status=503)
    feed.events(NOON + 2, event("impression", "r1", 7), event("impression", "r1", 8))
    feed.events(NOON + 3, event("click", "r1", 8))
    collector = Collector(out, feed.streams(), TIMING)
    collect(collector)
    assert rows(out, "requests", "request_id", "status", "arms") == [("r1", 200, ["e:x"]), ("r2", 503, [])]
    assert rows(out, "impressions", "ad_id", "clicked") == [("7", False), ("8", True)]
    assert feed.left() == (0, 0)
    assert feed.redis.exists(LIVING)
    collector.finish()
    assert not feed.redis.exists(LIVING)


def test_a_late_click_stands_in_the_day_of_its_answer_until_the_window_ends(feed: Feed, out: Path) -> None:
    before_midnight = NOON + 12 * 60 * MINUTE - 5 * MINUTE
    collector = Collector(out, feed.streams(), TIMING)
    feed.answer(before_midnight, "r1", [7, 8])
    feed.events(before_midnight + 1, event("impression", "r1", 7), event("impression", "r1", 8))
    collect(collector)
    assert rows(out, "impressions", "clicked") == [(False,), (False,)]
    feed.events(before_midnight + 20 * MINUTE, event("click", "r1", 7))
    feed.events(before_midnight + 31 * MINUTE, event("click", "r1", 8))
    collect(collector)
    assert rows(out, "impressions", "ad_id", "clicked") == [("7", True), ("8", False)]
    (path,) = (out / "impressions").glob("*/*.parquet")
    assert path == path_of(out, "impressions", before_midnight // (10 * MINUTE) * 10 * MINUTE)
    assert path.parent.name == "date=2033-11-23"


def test_scores_of_the_shadow_are_a_table_whenever_they_come(feed: Feed, out: Path) -> None:
    """Before their answer, after it was written, and after its clicks; an answer without them is in no such table."""
    collector = Collector(out, feed.streams(), TIMING)
    feed.shadow(NOON, "r1", [7, 8], [0.3, None])
    feed.answer(NOON + 1, "r1", [7, 8])
    feed.answer(NOON + 2, "r2", [7])
    feed.answer(NOON + 3, "r3", [7])
    for name in ("r1", "r2", "r3"):
        feed.events(NOON + 5, event("impression", name, 7))
    collect(collector)
    assert rows(out, "shadow", "request_id", "shadow_pctr", "clicked") == [("r1", 0.3, False)]
    feed.shadow(NOON + 20 * MINUTE, "r2", [7], [0.4], bundle="b3")
    feed.events(NOON + 20 * MINUTE, event("click", "r1", 7))
    collect(Collector(out, feed.streams(), TIMING))
    assert rows(out, "shadow", "request_id", "shadow_bundle_id", "pctr", "shadow_pctr", "clicked") == [
        ("r1", "b2", 0.1, 0.3, True),
        ("r2", "b3", 0.1, 0.4, False),
    ]
    assert len(rows(out, "impressions", "request_id")) == 3
    assert feed.left() == (0, 0)


class CrashError(BaseException):
    """The process ends here."""


class CrashingStreams(Streams):
    """Ends the process when entries are acknowledged: before Redis is told, or after."""

    after = False

    def done(self, stream: str, ids: Sequence[Id]) -> None:
        if not ids:
            return
        if self.after:
            super().done(stream, ids)
        raise CrashError


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_around_the_acknowledgement_loses_and_repeats_nothing(feed: Feed, out: Path, after: bool) -> None:
    for i in range(3):
        feed.answer(NOON + i, f"r{i}", [7])
        feed.events(NOON + 10 + i, event("impression", f"r{i}", 7))
    streams = CrashingStreams(feed.url, PREFIX)
    streams.after = after
    with pytest.raises(CrashError):
        collect(Collector(out, streams, TIMING))
    feed.answer(NOON + 20, "r3", [7])
    collect(Collector(out, feed.streams(), TIMING))
    assert [each[0] for each in rows(out, "requests", "request_id")] == ["r0", "r1", "r2", "r3"]
    assert len(rows(out, "impressions", "request_id")) == 3
    assert len(set(raw_ids(out, "served"))) == len(raw_ids(out, "served")) == 4
    assert feed.left() == (0, 0)


def test_tables_that_could_not_be_written_are_written_after_the_next_start(feed: Feed, out: Path) -> None:
    first = Collector(out, feed.streams(), TIMING)
    feed.answer(NOON, "r0", [7])
    collect(first)
    feed.answer(NOON + 1, "r1", [7])
    feed.events(NOON + 2, event("impression", "r0", 7))
    (out / "impressions").rename(out / "away")
    (out / "impressions").write_text("no folder")
    with pytest.raises(OSError, match="impressions"):
        collect(first)
    (out / "impressions").unlink()
    (out / "away").rename(out / "impressions")
    late = NOON + 5 * 60 * MINUTE  # by now the span of r0 is over
    feed.answer(late, "r2", [7])
    feed.events(late, event("impression", "r2", 7))
    collect(Collector(out, feed.streams(), TIMING))
    assert [each[0] for each in rows(out, "requests", "request_id")] == ["r0", "r1", "r2"]
    assert rows(out, "impressions", "request_id") == [("r0",), ("r2",)]


class DownStreams(Streams):
    """Redis fails once, when entries are acknowledged."""

    failures = 1

    def done(self, stream: str, ids: Sequence[Id]) -> None:
        if ids and self.failures:
            self.failures -= 1
            raise RedisDownError("down")
        super().done(stream, ids)


def test_a_redis_that_fails_while_entries_are_acknowledged_is_told_later(feed: Feed, out: Path) -> None:
    feed.answer(NOON, "r0", [7])
    collector = Collector(out, DownStreams(feed.url, PREFIX), TIMING)
    with pytest.raises(RedisDownError):
        collect(collector)
    collect(collector)
    assert len(raw_ids(out, "served")) == 1
    assert len(segments(out, "served")) == 1
    assert feed.left() == (0, 0)
    assert len(rows(out, "requests", "request_id")) == 1


def test_a_write_that_was_repeated_is_one_request(feed: Feed, out: Path) -> None:
    feed.answer(NOON, "r0", [7])
    feed.answer(NOON + 900, "r0", [7])
    feed.events(NOON + 950, event("impression", "r0", 7))
    collector = Collector(out, feed.streams(), TIMING)
    collect(collector)
    feed.answer(NOON + 5000, "r0", [7])
    collect(collector)
    assert rows(out, "requests", "request_id") == [("r0",)]
    assert rows(out, "impressions", "request_id") == [("r0",)]
    collect(Collector(out, feed.streams(), TIMING))
    assert rows(out, "requests", "request_id") == [("r0",)]


def test_a_backlog_of_answers_waits_for_no_clock(feed: Feed, out: Path) -> None:
    """Events that are read ahead of a long backlog of answers do not end the answers' windows."""
    for i in range(2500):
        feed.redis.xadd(SERVED, dict(pairs(answer_fields(NOON + i, f"r{i}", [7]))), id=f"{NOON + i}-0")
    feed.events(NOON + 3000, event("impression", "r2400", 7))
    feed.events(NOON + 40 * MINUTE, event("impression", "r2400", 7))
    collect(Collector(out, feed.streams(), TIMING))
    assert len(rows(out, "requests", "request_id")) == 2500
    assert rows(out, "impressions", "request_id", "time_ms") == [("r2400", NOON + 3000)]


def test_what_is_not_ours_is_left_out(feed: Feed, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    feed.redis.xadd(SERVED, {"something": "else"})
    feed.redis.xadd(SERVED, {"head": '{"format": 9}', "asked": "{}", "answer": "{}"})
    feed.redis.xadd(SERVED, {"shadow": '{"format": 9}'})
    feed.redis.xadd(SERVED, {"shadow": '{"format": 1, "user_id": "u", "bundle_id": "b", "ads": [], "pctr": []}'})
    feed.redis.xadd(SERVED, {"shadow": shadow_json("r0", [7, 8], [0.1])})
    feed.redis.xadd(EVENTS, {"events": "no JSON"})
    feed.redis.xadd(EVENTS, {"events": '{"events": [{"user_id": 1}]}'})
    feed.answer(int(time.time() * 1000) + 1000, "r0", [7])
    collect(Collector(out, feed.streams(), TIMING))
    assert rows(out, "requests", "request_id") == [("r0",)]
    assert caplog.text.count("is not ours") == 7


def test_one_collector_a_redis_and_a_folder_and_one_span_a_folder(feed: Feed, out: Path, tmp_path: Path) -> None:
    collect(Collector(out, feed.streams(), TIMING))
    with pytest.raises(OutcomesError, match=f"another collector .* writes to {out}"):
        Collector(tmp_path / "other", feed.streams(), TIMING).step()
    with pytest.raises(OutcomesError, match="hold 10 minutes each, not 20"):
        Collector(out, feed.streams(), Timing(span_ms=20 * MINUTE))
    with pytest.raises(OutcomesError, match="span of 7 minutes"):
        Timing(span_ms=7 * MINUTE)


def start(feed: Feed, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """The command, in a process of its own."""
    command = [sys.executable, str(ROOT / "adrank.py"), "outcomes", "--redis", feed.url, "--prefix", PREFIX]
    command += ["--out", str(out), "--flush-seconds", "0.02", "--log-level", "warning", *options]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"})


def test_kill_9_in_the_middle_loses_and_repeats_nothing(feed: Feed, out: Path) -> None:
    expected, number = [], 0
    for turn in range(4):
        process = start(feed, out)
        while not (out / "collector.lock").exists() or (turn and not feed.redis.exists(LIVING)):
            time.sleep(0.01)
        for _ in range(40 + 25 * turn):  # killed at another moment of its work each time
            now = int(time.time() * 1000)
            feed.redis.xadd(SERVED, dict(pairs(answer_fields(now, f"r{number}", [7, 8]))))
            feed.redis.xadd(SERVED, {"shadow": shadow_json(f"r{number}", [7, 8], [0.25, 0.5])})
            feed.events(now, event("impression", f"r{number}", 7), event("click", f"r{number}", 7))
            expected.append(f"r{number}")
            number += 1
            time.sleep(0.004)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    last = start(feed, out, "--once")
    assert last.wait(60) == 0
    assert [each[0] for each in rows(out, "requests", "request_id")] == expected
    assert rows(out, "impressions", "request_id", "clicked") == [(name, True) for name in expected]
    assert rows(out, "shadow", "request_id", "shadow_pctr", "clicked") == [(name, 0.25, True) for name in expected]
    for stream in ("served", "events"):
        ids = raw_ids(out, stream)
        assert len(ids) == len(set(ids)) == len(expected) * (2 if stream == "served" else 1)
    assert feed.left() == (0, 0)
