"""Bundles that are exchanged, an experiment, and Redis that goes away, on real services under load."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtest.command import main
from loadtest.served import Served, serve
from tests.loadtest.conftest import PATIENT
from tests.service.world import Recipe, make_world

PROMISE = "rate: 20\np50_ms: 20000\np99_ms: 30000\ndegraded_rate: {degraded}\n"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first of them; the other one, `next`, is beside it."""
    folder = tmp_path_factory.mktemp("bundles")
    first = make_world(folder)
    make_world(folder, Recipe(bundle_id="next"))
    return first


@pytest.fixture(scope="module")
def service(two_bundles: Path) -> Iterator[Served]:
    with serve(two_bundles, PATIENT) as served:
        yield served


def run(tmp_path: Path, degraded: float, *arguments: str) -> tuple[int, dict[str, Any]]:
    (tmp_path / "slo.yaml").write_text(PROMISE.format(degraded=degraded))
    found = tmp_path / "found.json"
    code = main(["--slo", str(tmp_path / "slo.yaml"), "--json", str(found), *arguments])
    return code, json.loads(found.read_text()) if found.exists() else {}


def test_bundles_are_exchanged_under_load_and_nothing_is_lost(service: Served, tmp_path: Path) -> None:
    code, found = run(tmp_path, 1, "--url", service.url, "--scenario", "swap", "--other", "next", "--seconds", "8")
    (stretch,) = found["stretches"]
    changed = [done for done in stretch["actions"] if done["error"] is None]
    assert changed
    assert [done["name"] for done in stretch["actions"]] == ["bundle next", "bundle world"] * 2
    assert set(stretch["bundles_ms"]) == {"world", "next"}
    assert stretch["statuses"] == {"200": stretch["requests"]}
    assert code == (0 if len(changed) == 4 else 1), "a change for which there was no time is a fail"
    code, found = run(tmp_path, 1, "--url", service.url, "--scenario", "ab", "--other", "next", "--seconds", "4")
    counts = {name: each["count"] for name, each in found["stretches"][0]["bundles_ms"].items()}
    assert set(counts) == {"world", "next"}
    assert min(counts.values()) > 0.2 * sum(counts.values())
    assert code == 0


def test_a_bundle_that_is_not_there_fails(service: Served, tmp_path: Path) -> None:
    asked = ["--url", service.url, "--scenario", "swap", "--other", "nowhere", "--seconds", "2"]
    code, found = run(tmp_path, 1, *asked)
    assert code == 1
    assert "nowhere" in found["stretches"][0]["actions"][0]["error"]
    assert found["stretches"][0]["error_rate"] == 0


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server")
def test_redis_goes_away_and_comes_back(two_bundles: Path, tmp_path: Path) -> None:
    patient = [f"--serve={each}" for each in ("--default-deadline-ms=8000", "--cache-users=0")]
    mix = tmp_path / "mix.json"
    mix.write_text('{"users": 50}')
    asked = ["--bundle", str(two_bundles), "--scenario", "redis-loss", "--seconds", "18", "--mix", str(mix), *patient]
    _, found = run(tmp_path, 0.5, *asked)
    whole, before, gone, after = found["stretches"]
    assert [done["name"] for done in whole["actions"]] == ["Redis is gone", "Redis is back"]
    assert [done["error"] for done in whole["actions"]] == [None, None]
    assert whole["statuses"] == {"200": whole["requests"]}
    assert gone["degraded_rate"] > 0.9
    assert before["degraded_rate"] < 0.5
    assert after["degraded_rate"] < 0.5
