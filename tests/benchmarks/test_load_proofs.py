"""The slowed service is slow where it says, and wrk is read rightly."""

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks import wrk
from client.calls import RANK
from loadtest.arrivals import constant
from loadtest.generators import Generators
from loadtest.plan import Plan
from loadtest.served import serve
from loadtest.slo import Slo, Verdict, judge
from loadtest.traffic import Request, write_requests
from tests.loadtest.conftest import PATIENT, answering
from tests.service.world import make_world

SLOWED_MS = 300


def test_a_slowed_stage_is_seen_where_it_is_and_fails(tmp_path: Path) -> None:
    write_requests([Request(RANK, json.dumps({"user_id": "anna", "context": {"scene": "feed"}}))], tmp_path / "log")
    program = ("-m", "benchmarks.slowed_service", str(SLOWED_MS))
    with serve(make_world(tmp_path), PATIENT, None, program) as service, Generators(1) as generators:
        found = generators.run(
            Plan(url=service.url, curve=constant(1, 4), seed=1, requests=str(tmp_path / "log"), begin=0)
        )
    assert found.stages["finerank"].percentile(1) >= SLOWED_MS - 1
    judged = judge(found, Slo(rate=1, p50_ms=SLOWED_MS - 50, p99_ms=60_000, degraded_rate=1))
    assert judged.verdict is Verdict.FAIL
    assert "p50" in [row.name for row in judged.rows if not row.holds]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_wrk_sends_the_requests_and_says_what_it_saw(tmp_path: Path) -> None:
    asked = [Request(RANK, json.dumps({"user_id": f'"{i}"\\é'})) for i in range(30)]
    write_requests(asked, tmp_path / "log")
    with answering(lambda i: (500 if i % 2 else 200, 0.05)) as (url, got):
        found = wrk.measure(url, tmp_path / "log", 100, 2, tmp_path, 1, 50, sorted(os.sched_getaffinity(0)))
    assert {(path, json.loads(body)["user_id"]) for path, body in got} <= {
        (each.path, json.loads(each.body)["user_id"]) for each in asked
    }
    assert found.p50_ms >= 50
    assert found.p99_ms >= found.p50_ms
    assert 10 < found.rate < 200
    assert found.bad > 0
