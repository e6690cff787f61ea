"""adrank release and adrank experiment against a service process: what they print, and how they fail."""

import importlib
import json
import shutil
from collections.abc import Iterator

import pytest

from tests.service.conftest import free_port
from tests.service.test_serve import Served, served
from tests.service.world import make_world

WHY = ["--why", "to see", "--who", "anna"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with two bundles that it may serve."""
    store = tmp_path_factory.mktemp("store")
    folder = make_world(store)
    manifest = json.loads((folder / "manifest.json").read_text())
    shutil.copytree(folder, store / "next")
    (store / "next/manifest.json").write_text(json.dumps(manifest | {"bundle_id": "next"}))
    with served(folder) as running:
        yield running


def run(command: str, service: Served, *arguments: str) -> int:
    module = {"release": "control.release", "experiment": "outcomes.experiment"}[command]
    action, *rest = arguments
    return int(importlib.import_module(module).main([action, *rest, "--url", service.url]))


def test_a_bundle_is_served_and_gone_back_from(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("release", service, "serve", "next", *WHY) == 0
    assert "is served by 1 of 1 processes" in capsys.readouterr().out
    assert run("release", service, "state") == 0
    printed = capsys.readouterr().out
    assert "next for everybody else" in printed
    assert "passed golden" in printed
    assert run("release", service, "rollback", *WHY) == 0
    assert run("release", service, "state", "--json") == 0
    state = json.loads(capsys.readouterr().out.split("processes\n", 1)[-1])
    assert state["agreed"]["control"]["bundle"] == "world"
    assert run("release", service, "audit", "--limit", "2") == 0
    newest, before = capsys.readouterr().out.splitlines()
    assert newest.endswith("rollback by anna: to see")
    assert before.endswith("serve by anna: to see")


def test_a_bundle_that_is_refused_says_why(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("release", service, "serve", "nowhere", *WHY) == 1
    said = capsys.readouterr().err
    assert said.startswith("adrank release serve: version ")
    assert "nowhere" in said
    assert said.count("\n") == 1
    assert run("release", service, "rollback", *WHY) == 0


def test_an_experiment_from_start_to_promotion(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--name", "trial", "--arm", "fresh", "--bundle", "next", "--weight", "0.25"]
    assert run("experiment", service, "start", *options, *WHY) == 0
    assert run("experiment", service, "ramp", "trial", "0.5", "1@24", *WHY) == 0
    capsys.readouterr()
    assert run("experiment", service, "status", "trial") == 0
    printed = capsys.readouterr().out
    assert "trial: running" in printed
    assert "50.0% of all users" in printed
    assert "control: 75.0% of them" in printed
    assert "fresh: 25.0%: bundle next" in printed
    assert run("experiment", service, "promote", "trial", "fresh", *WHY) == 0
    assert run("experiment", service, "stop", "trial", *WHY) == 1
    assert "'trial' is stopped; running: none" in capsys.readouterr().err


def test_what_is_asked_wrongly_is_said_before_anything_is_sent(
    service: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", service, "start", "--bundle", "next", "--weight", "2", *WHY) == 2
    assert "weight" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("experiment", service, "ramp", "trial", "half", *WHY)
    assert "neither SHARE nor SHARE@HOURS" in capsys.readouterr().err


def test_nobody_there_is_one_line(service: Served, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = Served(service.process, f"http://127.0.0.1:{free_port()}", "")
    assert run("release", nobody, "state") == 1
    said = capsys.readouterr().err
    assert "cannot be reached" in said
    assert said.count("\n") == 1
