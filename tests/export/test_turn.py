"""Steps of a turn are taken once; what the gate said is told in a few words."""

import json
from pathlib import Path

import pytest

from control.reports import BundleReport, Check
from export.judgement import Limits
from export.loop import line, next_turn
from export.turn import STEPS, Found, Plan, Turn, verdict
from models.compression.recipe import Recipe

PLAN = Plan(
    url="http://127.0.0.1:9",
    redis="redis://127.0.0.1:9/0",
    prefix="u:",
    dataset=Path("dataset.yaml"),
    bundles=Path("bundles"),
    data=Path("data"),
    recipe=Recipe.model_validate({"name": "int8", "steps": [{"step": "values", "tables": "int8"}]}),
    limits=Limits(),
    key=None,
    minutes=1.0,
    seed=1,
    timeout_s=1.0,
    progress=False,
)


def test_a_step_is_taken_once(tmp_path: Path) -> None:
    taken: list[str] = []

    def act() -> Found:
        taken.append("now")
        return {"rows": 7}

    turn = Turn(tmp_path / "turn-1", PLAN)
    first = turn.step("prepare", act)
    assert first["rows"] == 7
    assert first["prepare.seconds"] >= 0
    assert Turn(tmp_path / "turn-1", PLAN).step("prepare", act) == json.loads(
        (tmp_path / "turn-1/prepare.json").read_text()
    )
    assert taken == ["now"]


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def act() -> Found:
        raise OSError("no space left")

    turn = Turn(tmp_path / "turn-1", PLAN)
    with pytest.raises(OSError, match="no space left"):
        turn.step("prepare", act)
    assert list(turn.folder.iterdir()) == []


def test_the_next_turn_is_the_first_that_is_not_over(tmp_path: Path) -> None:
    assert next_turn(tmp_path) == 1
    for number in (1, 2):
        Turn(tmp_path / f"turn-{number}", PLAN).step("traffic", dict)
    assert next_turn(tmp_path) == 1
    turn = Turn(tmp_path / "turn-1", PLAN)
    assert not turn.path("serve.json").exists()
    for step in STEPS:
        turn.step(step, lambda step=step: {f"of.{step}": 1})  # type: ignore[misc]
    assert next_turn(tmp_path) == 2
    assert turn.result is not None
    assert {f"of.{step}" for step in STEPS if step != "traffic"} <= turn.result.keys()


def test_a_refusal_names_check_value_and_limit() -> None:
    checks = (Check(name="golden", passed=True), Check(name="psi", passed=False, found=2.5, limit=2.0))
    refused = BundleReport(bundle_id="b", status="refused", checks=checks, error="psi")
    assert verdict([refused]) == "refused: psi 2.5, limit 2"
    assert verdict([BundleReport(bundle_id="b", status="refused", error="it crashed")]) == "refused: it crashed"
    ready = BundleReport(bundle_id="b", status="ready", checks=(*checks[:1], *checks[:1]))
    assert verdict([ready, BundleReport(bundle_id="b", status="ready")]) == "passed 2 checks"


def test_a_turn_is_one_line() -> None:
    found = {f"{step}.seconds": 2.0 for step in STEPS} | {"served": "demo", "bundle": "demo-t1", "gate": "passed"}
    auc = {"": 0.00766, ".low": -0.002, ".high": 0.02, ".before": 0.71234, ".after": 0.72}
    found |= {"rows": 40_000} | {f"judge.finerank.auc{name}": value for name, value in auc.items()}
    apart = ["0.7123", "0.7200", "+0.0077", "[-0.0020,", "+0.0200]"]
    shown = ["1", "demo", "-", "-", "-", "40,000", *apart, "2", "6", "4", "2.0", "demo-t1", "passed"]
    assert line(1, found).split() == shown
    simulated = found | {
        "simulate.all.true_ctr": 0.12345,
        "simulate.all.requests": 4000,
        "simulate.all.true_ecpm": 1488.1,
    }
    assert line(1, simulated).split()[2:5] == ["4,000", "12.345%", "1,488"]


def test_a_turn_whose_networks_were_refused_has_dashes() -> None:
    found = {f"{step}.seconds": 2.0 for step in STEPS if step not in ("export", "publish")} | {"served": "demo"}
    refused = line(2, found | {"rows": 60, "gate": "not asked: finerank not told"})
    assert refused.split()[6:] == ["-", "-", "-", "2", "6", "0", "2.0", "-", "not", "asked:", "finerank", "not", "told"]
