"""A bad arm of a running service is stopped by the collector, and the commands say what happened."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bundle.folder import open_bundle
from control.changes import Start
from control.client import Admin
from control.state import Experiment
from service.example import example_request
from tests.end_to_end.running import adrank, running, serving
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer
from tests.service.world import make_world

KEY = "an-admin-key-of-tests"
EXPERIMENT = Experiment.model_validate(
    {
        "name": "try",
        "salt": "s",
        "arms": [
            {"name": "humble", "weight": 0.4, "overrides": {"calibration": {"offset": -6.0}}},
            {"name": "same", "weight": 0.3},
        ],
        "guardrails": {"calibration": 3.0, "min_impressions": 100},
    }
)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server
    server.stop()


def visit(url: str, body: dict[str, object], users: int) -> None:
    """Each user sees the ads of one answer and clicks the second."""
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
        for user in range(users):
            answer = client.post("/v1/rank", json=body | {"user_id": f"u{user}"}).raise_for_status().json()
            said = {"user_id": f"u{user}", "request_id": answer["request_id"]}
            ads = [ad["ad_id"] for ad in answer["ads"]]
            events = [said | {"kind": "impression", "ad_id": ad} for ad in ads]
            events.append(said | {"kind": "click", "ad_id": ads[1]})
            client.post("/v1/events", json={"events": events}).raise_for_status()


def test_a_bad_arm_is_stopped_and_the_commands_say_why(redis_server: RedisServer, tmp_path: Path) -> None:
    bundle, out, url_of = make_world(tmp_path / "bundles"), tmp_path / "out", redis_server.url
    key_file = tmp_path / "key"
    key_file.write_text(f"{KEY}\n")
    reading = tmp_path / "reading.json"
    reading.write_text('{"min_users": 30}')
    options = ("--redis-url", url_of, "--log-entries", "10000")
    with serving(bundle, *options, ADRANK_ADMIN_KEY=KEY) as url, Admin(url, KEY, "anna") as admin:
        admin.wait(admin.change(Start(experiment=EXPERIMENT, who="anna", why="to see")), PATIENCE_S)
        collect = ("outcomes", "--redis", url_of, "--out", str(out), "--flush-seconds", "0.2", "--log-level", "error")
        visit(url, example_request(open_bundle(bundle), 5), users=200)  # all of them before any arm is stopped
        with running(
            *collect, "--url", url, "--key-file", str(key_file), "--look-seconds", "0.2", "--reading", str(reading)
        ):

            def stopped() -> list[str]:
                state = admin.state().agreed
                found = None if state is None else state.experiment("try")
                return [arm.name for arm in found.arms if arm.stopped] if found is not None else []

            until(stopped)
            assert stopped() == ["humble"]
        change = admin.audit()[0]
        assert (change.action, change.who) == ("guardrail", "guardrails")
        assert change.why.startswith("calibration, clicks ÷ sum of pCTR, is ")
        assert "limit 0.333 to 3" in change.why

        asked = ("experiment", "status", "try", "--outcomes", str(out), "--url", url)
        said = adrank(*asked, ADRANK_ADMIN_KEY=KEY)
        assert said.returncode == 0, said.stderr
        lines = said.stdout.splitlines()
        assert lines[0].startswith("try: running since")
        assert any(line.startswith("humble ") and line.endswith("no difference yet") for line in lines)
        assert "humble: stopped" in lines
        (found,) = json.loads(adrank(*asked, "--json", ADRANK_ADMIN_KEY=KEY).stdout)["experiments"]
        arms = {arm["name"]: arm for arm in (found["verdict"]["control"], *found["verdict"]["arms"])}
        assert found["experiment"]["name"] == "try"
        assert sum(arm["users"] for arm in arms.values()) == 200
        assert sum(arm["impressions"] for arm in arms.values()) == 1000

        strange = adrank("experiment", "status", "no", "--url", url, ADRANK_ADMIN_KEY=KEY)
        assert strange.returncode == 1
        assert "the experiment 'no' is not known; there are: try" in strange.stderr
        empty = adrank("experiment", "status", "--outcomes", str(tmp_path), "--url", url, ADRANK_ADMIN_KEY=KEY)
        assert empty.returncode == 1
        assert "holds no tables of `adrank outcomes`" in empty.stderr
