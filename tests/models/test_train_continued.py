"""`adrank train --continue-from --since` from the outside."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from models.checkpoint import open_checkpoint
from models.train import log_time, main
from tests.models.growing import DIN, GWEN, HALF, ROWS, config, description, write_shop

QSCORE = {"kind": "qscore"}


class Days:
    """The command on two days of the shop; each day has a description and a folder of checkpoints of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_shop(folder / "raw")
        ends = {"monday": description(HALF - 200, HALF), "tuesday": description(ROWS - 200, None)}
        for day, spec in ends.items():
            (folder / f"{day}.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")))

    def __call__(self, day: str, model: dict[str, Any], *more: str, **training: Any) -> int:
        path = self.folder / f"{model['kind']}-{day}.yaml"
        content = config(model, model["kind"], **training).model_dump(mode="json") | {"dataset": f"{day}.yaml"}
        path.write_text(yaml.safe_dump(content))
        places = ["--data", str(self.folder / "raw"), "--prepared", str(self.folder / "prepared")]
        out = ["--out", str(self.folder / day), "--threads", "1", "--quiet"]
        return main([str(path), *places, *out, "--json", str(self.folder / "m.json"), *more])

    def place(self, day: str, model: dict[str, Any]) -> Path:
        return self.folder / day / f"{model['kind']}-seed1"


@pytest.fixture(scope="module")
def monday(tmp_path_factory: pytest.TempPathFactory) -> Days:
    days = Days(tmp_path_factory.mktemp("days"))
    for model in (DIN, QSCORE):
        assert days("monday", model) == 0
    return days


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The last line on standard error."""
    return capsys.readouterr().err.splitlines()[-1].removeprefix("adrank train: ")


def test_the_next_day(monday: Days, capsys: pytest.CaptureFixture[str]) -> None:
    before = ("--continue-from", str(monday.place("monday", DIN)))
    shutil.rmtree(monday.folder / "prepared")  # the checkpoint is enough
    assert monday("tuesday", DIN, *before, "--since", str(HALF)) == 0
    first = open_checkpoint(monday.place("tuesday", DIN))
    assert first.metrics["valid.impressions"] == 200
    sizes = {field.name: field.size for field in first.schema.ad.fields}
    assert sizes["ad"] == 82
    weights = first.folder / "best.pt"
    written = weights.stat().st_mtime_ns
    assert monday("tuesday", DIN, *before, "--since", str(HALF)) == 0, "a finished run is taken up"
    assert weights.stat().st_mtime_ns == written
    capsys.readouterr()

    assert monday("tuesday", DIN, *before, "--since", str(HALF + 1)) == 2
    assert refusal(capsys) == (f"{first.folder} holds a run since {HALF}, asked for is {HALF + 1}; --fresh starts over")
    assert monday("tuesday", DIN, *before) == 2
    assert refusal(capsys).endswith(f"holds a run since {HALF}, asked for is None; --fresh starts over")
    assert monday("tuesday", DIN) == 2
    assert "another configuration or other data" in refusal(capsys), "other data: nothing is prepared on Monday's ids"

    other = monday.folder / "other"
    shutil.copytree(monday.place("monday", DIN), other)
    state = other / "last.pt"
    state.write_bytes(state.read_bytes() + b"\0")
    assert monday("tuesday", DIN, "--continue-from", str(other), "--since", str(HALF)) == 2
    assert refusal(capsys) == (
        f"{first.folder} holds a run that started from another checkpoint, or none; --fresh starts over"
    )
    head = first.folder / "config.json"
    old = {key: value for key, value in json.loads(head.read_text()).items() if key not in ("since", "continued")}
    head.write_text(json.dumps(old))
    assert monday("tuesday", DIN, *before, "--since", str(HALF)) == 2, (
        "a run of an earlier version started from nothing"
    )


def test_a_qscore_continues_on_the_same_data_as_the_networks(monday: Days, capsys: pytest.CaptureFixture[str]) -> None:
    assert monday("tuesday", QSCORE, "--continue-from", str(monday.place("monday", QSCORE))) == 0
    assert monday("tuesday", DIN, "--continue-from", str(monday.place("monday", DIN)), "--fresh") == 0
    qscore, din = (open_checkpoint(monday.place("tuesday", model)) for model in (QSCORE, DIN))
    assert qscore.data_fingerprint == din.data_fingerprint
    capsys.readouterr()
    assert monday("tuesday", QSCORE, "--since", "5") == 2
    assert refusal(capsys) == "--since 5: a Qscore counts the whole training split"


def test_without_a_checkpoint_only_recent_rows_are_trained_on(monday: Days) -> None:
    assert monday("monday", GWEN, "--since", "700") == 0
    head = json.loads((monday.place("monday", GWEN) / "config.json").read_text())
    assert (head["since"], head["continued"]) == (700, None)


def test_what_cannot_be_continued_is_refused(monday: Days, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(monday.place("monday", DIN))
    assert monday("monday", DIN, "--continue-from", checkpoint, "--fresh") == 2
    assert (
        refusal(capsys)
        == f"{checkpoint} is the checkpoint to continue from, and would be replaced; choose another --out"
    )
    assert Path(checkpoint).is_dir()
    assert monday("tuesday", GWEN, "--continue-from", checkpoint) == 2
    assert refusal(capsys) == f"model.kind is 'gwen', {checkpoint} is a 'din'"
    assert monday("tuesday", DIN, "--continue-from", checkpoint, "--since", "99999") == 2
    assert refusal(capsys).endswith(f"no training row is at 99999 or later, the last is at {ROWS - 201}")
    assert monday("tuesday", DIN, "--continue-from", str(monday.folder / "none")) == 2
    assert "none/config.json: cannot be read" in refusal(capsys)


def test_times_are_the_logs_own_or_dates() -> None:
    assert log_time("1650000000000") == 1650000000000
    assert log_time("2022-04-30") == 1651276800000
    assert log_time("2022-04-30T00:00+08:00") == 1651276800000 - 8 * 3_600_000
    with pytest.raises(argparse.ArgumentTypeError, match="'yesterday' is neither an integer nor a date such as"):
        log_time("yesterday")
