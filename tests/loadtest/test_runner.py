"""A phase's actions happen at their times, what they raise is kept, and the display says what goes on."""

import json
from pathlib import Path

import pytest

from client.calls import RANK
from loadtest.arrivals import constant
from loadtest.generators import Generators
from loadtest.runner import Action, Phase, Runner
from loadtest.traffic import Request, write_requests
from tests.loadtest.conftest import answering


def test_actions_and_the_display(generators: Generators, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_requests([Request(RANK, json.dumps({"user_id": 1}))], tmp_path / "log")
    happened: list[str] = []

    def fail() -> None:
        raise OSError("it is gone")

    actions = (
        Action(1.5, "second", fail),
        Action(0.5, "first", lambda: happened.append("first")),
        Action(900.0, "too late", lambda: happened.append("too late")),
    )
    with answering(lambda i: (200, 0.0)) as (url, _):
        runner = Runner(generators, url, tmp_path / "log", {}, 1, 10.0, show=True)
        found = runner.measure(Phase("a phase", constant(10, 2.2), actions=actions))
        first_seed = runner.seed
        runner.measure(Phase("another", constant(10, 0.5)))
    assert found.answered == 22
    assert happened == ["first"]
    assert runner.seed == first_seed + 1, "phases must not send the same arrivals"
    assert runner.done == []
    shown = capsys.readouterr().err
    assert "a phase" in shown
    assert "of 2 s" in shown
    assert "in flight" in shown


def test_what_became_of_actions_is_kept(generators: Generators, tmp_path: Path) -> None:
    write_requests([Request(RANK, json.dumps({"user_id": 1}))], tmp_path / "log")

    def fail() -> None:
        raise OSError("it is gone")

    actions = (Action(0.2, "fails", fail), Action(900.0, "too late", fail))
    with answering(lambda i: (200, 0.0)) as (url, _):
        runner = Runner(generators, url, tmp_path / "log", {}, 1, 10.0, show=False)
        runner.measure(Phase("a phase", constant(10, 1), actions=actions))
    assert [(done.name, done.error) for done in runner.done] == [
        ("fails", "it is gone"),
        ("too late", "the load had ended before its turn came"),
    ]
    assert 0.2 <= runner.done[0].began_s <= runner.done[0].ended_s
