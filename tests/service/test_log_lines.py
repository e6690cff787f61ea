"""Log lines, of a real process and one by one."""

import json
import logging
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from service.log_lines import Allowance, JsonLines, Said
from service.settings import read_settings
from tests.patience import PATIENCE_S
from tests.service.test_serve import ROOT

KEY = "the-key-of-callers"
SECRETS = (KEY, "anna", "Lyon")
SERVE = [sys.executable, "adrank.py", "serve", "--port", "0", "--log-format", "json"]


def lines_of(*options: str, url: Any = None, stop: bool = True) -> list[dict[str, Any]]:
    """Every line of a process until its end; `url` is called with its address."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ADRANK_")}
    process = subprocess.Popen(
        [*SERVE, *options],
        cwd=ROOT,
        env=ours | {"ADRANK_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    with process.stdout as output:
        for line in output:
            assert not any(secret in line for secret in SECRETS), line
            found.append(json.loads(line))
            if found[-1]["message"] == "serving":
                url(found[-1]["address"])
                process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == (0 if stop else 2)
    return found


def test_every_line_of_a_process_is_a_json_object(folder: Path) -> None:
    def ask(address: str) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE_S, headers={"Authorization": f"Bearer {KEY}"}) as client:
            named = {"x-request-id": "the-one"}
            body = {"user_id": "anna", "deadline_ms": 1, "context": {"scene": "feed"}}
            for _ in range(20):
                client.post("/v1/rank", json=body, headers=named)
            client.post("/v1/rank", json={"user_id": "anna", "k": -1}, headers={"x-request-id": "wrong"})
            client.get("/v1/bundles", headers={"Authorization": "", "x-request-id": "stranger"})
            client.put("/v1/ads/flags", json={"flags": [{"ad_id": 1000, "paused": True}]}, headers=named)

    lines = lines_of("--bundle", str(folder), "--log-requests-per-second", "10000", url=ask)
    for line in lines:
        time = datetime.fromisoformat(line["time"])
        assert time.tzinfo == UTC
        assert abs((datetime.now(UTC) - time).total_seconds()) < 300
        assert line["level"] in ("info", "warning", "error")
        assert line["logger"].startswith("adrank.")
        assert isinstance(line["process"], int)
    said = {line["message"]: line for line in lines}
    assert said["serving"]["bundle"] == "world"
    assert {"stopping", "stopped", "flags of ads"} <= said.keys()
    degraded = [line for line in lines if line["message"] == "degraded"]
    assert degraded, "with a deadline of a millisecond"
    for line in degraded:
        assert (line["request_id"], line["route"], line["status"]) == ("the-one", "/v1/rank", 200)
        assert (line["bundle"], line["arms"], line["version"]) == ("world", {}, 1)
        assert line["user"] in ("known", "unknown"), "never who it is"
        assert line["degraded"]
        assert line["ms"] > 0
    refused = {line["request_id"]: line["status"] for line in lines if line["message"] == "refused"}
    assert refused == {"wrong": 422, "stranger": 401}
    assert said["flags of ads"]["request_id"] == "the-one"


def test_a_start_that_fails_is_a_line_too(tmp_path: Path) -> None:
    (line,) = lines_of("--bundle", str(tmp_path / "none"), stop=False)
    assert (line["level"], line["message"]) == ("error", "not started")
    assert "manifest.json: cannot be read" in line["error"]


def test_an_exception_and_strange_values_stay_on_one_line() -> None:
    try:
        raise ZeroDivisionError("two\nlines")
    except ZeroDivisionError:
        record = logging.LogRecord("x", logging.ERROR, "", 1, Said("a\nb", of=Path("c")), None, sys.exc_info())
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["of"]) == ("a\nb", "c")
    assert "ZeroDivisionError: two\nlines" in line["exception"]


def test_as_text_the_fields_follow_the_message() -> None:
    said = Said("degraded", status=200, arms={"trial": "new"}, degraded=["user_features: timeout"])
    assert str(said) == "degraded status=200 arms=trial:new degraded=['user_features: timeout']"
    assert str(Said("x", arms={})) == "x arms=none"


def test_what_is_left_out_is_said_with_the_next_line(monkeypatch: Any) -> None:
    now = [100.0]
    monkeypatch.setattr("service.log_lines.time.monotonic", lambda: now[0])
    allowance = Allowance(2)
    assert [allowance.take() for _ in range(5)] == [0, 0, None, None, None]
    now[0] = 101.0
    assert [allowance.take() for _ in range(3)] == [3, 0, None]
    assert [Allowance(0).take() for _ in range(3)] == [0, 0, 0]


def test_the_default_bounds_the_lines_of_a_process(folder: Path) -> None:
    assert read_settings(bundle=folder).log_requests_per_second == 10
