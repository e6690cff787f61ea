"""`adrank loadtest` on a real service: exit codes, figures, and one line where it cannot be run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.command import main
from loadtest.histograms import Histogram
from loadtest.served import Served
from loadtest.traffic import Mix
from loadtest.world import Service, give_histories, look

GENEROUS = "rate: 20\np50_ms: 20000\np99_ms: 30000\ndegraded_rate: 1\n"
IMPOSSIBLE = "rate: 20\np50_ms: 0.001\np99_ms: 30000\ndegraded_rate: 1\n"


def run(tmp_path: Path, service: Served, promise: str, *more: str) -> tuple[int, dict[str, Any]]:
    (tmp_path / "slo.yaml").write_text(promise)
    found = tmp_path / "found.json"
    asked = ["--url", service.url, "--slo", str(tmp_path / "slo.yaml"), "--json", str(found), "--seconds", "2", *more]
    code = main(asked)
    return code, json.loads(found.read_text()) if found.exists() else {}


def test_a_promise_that_holds_passes(tmp_path: Path, service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run(tmp_path, service, GENEROUS, "--scenario", "steady", "--give-histories")
    assert code == 0
    printed = capsys.readouterr().out
    assert printed.endswith("verdict: pass\n")
    assert "closed loop" in printed
    (stretch,) = found["stretches"]
    assert found["bundle"] == "world"
    assert stretch["requests"] == pytest.approx(40, abs=25)
    assert stretch["statuses"] == {"200": stretch["requests"]}
    assert {"features", "queue", "finerank", "total", "network"} <= set(stretch["stages_ms"])
    assert stretch["bundles_ms"]["world"]["count"] == stretch["requests"]
    assert found["closed_loop"]["requests"]


@pytest.mark.slow
def test_the_knee_is_looked_for_and_reported(
    tmp_path: Path, service: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    code, found = run(tmp_path, service, GENEROUS, "--quick", "--seconds", "1", "--report", str(report))
    assert code == 0
    steps = found["knee"]["steps"]
    assert steps
    saturated, footprint = found["saturated"], found["footprint"]
    assert saturated["achieved_rate"] > 0
    turns = Histogram.decode(saturated["turns"])
    assert turns.count == saturated["stages_ms"]["turn"]["count"] > 0
    assert footprint["workers"] == 1
    assert footprint["own_bytes"] is None  # of a service that is asked by its address
    assert [step["rate"] for step in steps] == sorted(step["rate"] for step in steps)
    assert all(step["achieved_rate"] > 0 for step in steps)
    printed = capsys.readouterr().out
    assert "knee" in printed
    assert "requests/s   answered" in printed
    assert "<h2>Knee</h2>" in report.read_text()


def test_a_promise_that_does_not_hold_fails(
    tmp_path: Path, service: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = run(tmp_path, service, IMPOSSIBLE, "--scenario", "diurnal")
    assert code == 1
    assert capsys.readouterr().out.endswith("verdict: fail\n")
    rows = {row["name"]: row["holds"] for row in found["stretches"][0]["judged"]["rows"]}
    assert rows["p50"] is False
    assert rows["p99"] is True


def test_more_than_a_generator_can_send_gives_no_verdict(
    tmp_path: Path, service: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """20,000/s in Python: it is late, however fast the machine."""
    tight = "rate: 20000\np99_ms: 100\nerror_rate: 1\ndegraded_rate: 1\n"
    code, found = run(tmp_path, service, tight, "--scenario", "diurnal", "--seconds", "1.5", "--timeout", "1")
    assert code == 3
    assert found["verdict"] == "no verdict"
    assert "after they were due" in capsys.readouterr().out


def test_logged_requests_are_sent_again(tmp_path: Path, service: Served) -> None:
    body = json.dumps({"user_id": 7, "k": 3, "context": {"scene": "feed"}})
    scores = json.dumps({"path": "/v1/score", "body": {"user_id": 8, "ads": [1]}})
    (tmp_path / "log.jsonl").write_text(f"{body}\n{scores}\n")
    code, found = run(tmp_path, service, GENEROUS, "--scenario", "diurnal", "--requests", str(tmp_path / "log.jsonl"))
    assert code == 0
    assert found["stretches"][0]["error_rate"] == 0


def test_a_service_tells_what_it_has(service: Served) -> None:
    asked = Service(service.url)
    try:
        mix = Mix(context={"scene": ["feed", "search"]})
        world = look(asked, mix, ["anna", "bob"], 1)
        assert len(world.ads) > 10
        assert set(world.ads) <= set(range(1000, 1300))
        assert "scene" in world.context_fields
        assert world.histories == {"clicks": 20}
        assert give_histories(asked, world, mix, 1) >= 2
    finally:
        asked.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slo", "{folder}/none.yaml"], "none.yaml"),
        (["--url", "http://127.0.0.1:9"], "GET http://127.0.0.1:9/v1/bundles: "),
        (["--url", "nowhere"], "url is 'nowhere', http://HOST:PORT or https://HOST:PORT is needed"),
        (["--mix", "{folder}/mix.json"], "sugar: Extra inputs"),
        (["--scenario", "soak", "--seconds", "2"], "--seconds 2: --scenario soak needs 6 at least"),
        (["--scenario", "swap"], "--scenario swap needs --other"),
        (["--scenario", "redis-loss", "--url", "x"], "needs a service of its own, without --url"),
        (["--bundle", "{folder}"], "the service did not start: exit code 2"),
    ],
)
def test_what_cannot_be_run_is_one_line_and_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "mix.json").write_text('{"sugar": 2}')
    command = [sys.executable, "adrank.py", "loadtest", *(each.format(folder=tmp_path) for each in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.splitlines()[-1].startswith("adrank loadtest: ")
