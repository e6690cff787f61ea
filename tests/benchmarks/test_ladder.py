"""What the overload benchmark counts, and the bundle it serves."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bundles import work_bundle
from benchmarks.ladder import DEADLINE_MS, Outcome, _tables
from benchmarks.report import Report
from bundle.folder import open_bundle
from export import certify
from service.loading import load_bundle
from service.settings import Settings


def answered(*given: tuple[float, int, str | None]) -> Outcome:
    outcome = Outcome(len(given))
    for ms, status, rung in given:
        outcome.take(ms, status, json.dumps({"rung": rung}).encode())
    return outcome


def test_in_time_is_by_a_fine_ranker_and_within_the_deadline() -> None:
    found = answered((10, 200, "full"), (DEADLINE_MS + 1.0, 200, "full"), (10, 200, None), (1, 429, None))
    assert (found.in_time, found.refused, dict(found.rungs)) == (1, 1, {"full": 2, "none": 1})
    assert found.p99() == np.quantile([10, DEADLINE_MS + 1.0, 10], 0.99), "refusals are no answers"


def test_shares_are_of_all_that_was_offered() -> None:
    report = Report("ladder")
    with_ladder = answered((10, 200, "full"), (20, 200, "light"), (10, 200, None), (1, 429, None))
    _tables(report, {"with": {2.0: with_ladder}, "without": {2.0: answered((10, 200, "full"))}}, 50.0)
    shares = {
        name: report.figures[f"ladder.with.x2.{name}"] for name in ("in_time", "full", "light", "none", "refused")
    }
    assert shares == {"in_time": 0.5, "full": 0.25, "light": 0.25, "none": 0.25, "refused": 0.25}
    assert report.series["ladder.in_time.with the ladder"] == [(2.0, 0.5)]


def test_the_work_bundle_may_have_a_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certify, "REQUESTS", 40)  # of 500 candidates, 15 ms each
    folder = work_bundle(tmp_path, 2_000, "paper", users=10, rungs=("light",))
    worths = [worth for *_, worth in open_bundle(folder).manifest.stages.finerank.rungs()]
    assert worths[0].work() > 3 * worths[1].work()
    loaded = load_bundle(folder, Settings(bundle=folder))
    assert [rung.name for rung in loaded.ladder.rungs] == ["full", "light"]
    assert work_bundle(tmp_path, 2_000, "paper", users=10, rungs=("light",)) == folder
