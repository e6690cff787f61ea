"""Simulated users against a real service: what is counted is what they saw, and each arm's truth is known."""

import json
from pathlib import Path

import httpx
import pytest

from control.changes import Start
from control.client import Admin
from control.state import Experiment
from models.marketplace import simulate
from tests.end_to_end.running import serving
from tests.market import Market
from tests.patience import PATIENCE_S

KEY = "the-key-of-callers"
EXPERIMENT = Experiment.model_validate(
    {
        "name": "auction",
        "salt": "s",
        "arms": [{"name": "by-pctr", "weight": 0.5, "overrides": {"auction": {"bid_exponent": 0}}}],
    }
)


def test_the_true_lift_of_each_arm_is_told(
    exported: Path, market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "figures.json"
    (tmp_path / "key").write_text(f"{KEY}\n")
    with serving(exported, ADRANK_API_KEY=f"the-key-before-that,{KEY}") as url, Admin(url, None, "anna") as admin:
        admin.wait(admin.change(Start(experiment=EXPERIMENT, who="anna", why="to see")), PATIENCE_S)
        options = ["--against", url, "--market", str(market.raw), "--together", "50", "--k", "5", "--json", str(file)]
        options += ["--key-file", str(tmp_path / "key")]
        assert simulate.main([*options, "--requests", "300"]) == 0
        taken = httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text
    found = json.loads(file.read_text())
    arms = [f"simulate.auction.{arm}" for arm in ("by-pctr", "control")]
    for name in ("requests", "impressions", "clicks"):
        assert sum(found[f"{arm}.{name}"] for arm in arms) == found[f"simulate.all.{name}"]
    assert found["simulate.all.requests"] == 300
    assert found["simulate.all.failed"] == 0
    lift = found[f"{arms[0]}.true_ctr"] / found[f"{arms[1]}.true_ctr"] - 1
    assert found[f"{arms[0]}.true_lift"] == pytest.approx(lift)
    assert "simulate.auction.by-pctr.true_lift = " in capsys.readouterr().out
    events = found["simulate.all.impressions"] + found["simulate.all.clicks"]
    counted = [line.split()[-1] for line in taken.splitlines() if line.startswith("adrank_events_total")]
    assert sum(map(float, counted)) == events


def test_a_service_that_is_not_there_is_named(market: Market, capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate.main(["--against", "http://127.0.0.1:9", "--market", str(market.raw), "--requests", "10"]) == 1
    assert "http://127.0.0.1:9: none of 10 requests was answered: ConnectError" in capsys.readouterr().err
