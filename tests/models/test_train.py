"""`adrank train` from the outside: exit codes, figures, and taking up what is there."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from models.checkpoint import open_checkpoint
from models.data.batches import count
from models.data.context_values import restricted
from models.evaluation import evaluate, network_scorer
from models.train import main, summarise
from tests.market import DIN, DQM, QSCORE, Market, make_config
from tests.models.test_training import at_step

KEYS = {
    f"{split}.{name}"
    for split in ("valid", "test")
    for name in ("auc", "gauc", "logloss", "calibration", "ece", "impressions", "users", "best_auc")
}
TIMES = ("train.seconds", "train.samples_per_s")
SIZES = ("model.parameters", "model.multiply_adds", "model.multiply_adds_request")


class Command:
    """The command with the arguments that all these tests share."""

    def __init__(self, market: Market, folder: Path) -> None:
        self.market, self.folder, self.out = market, folder, folder / "checkpoints"

    def config(self, model: dict[str, Any], name: str = "some", **settings: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(make_config(name, model, **settings).model_dump(mode="json")))
        return path

    def __call__(self, config: Path, *more: str, data: Path | None = None) -> int:
        places = ["--data", str(data or self.market.raw), "--prepared", str(self.market.root), "--out", str(self.out)]
        return main([str(config), *places, "--threads", "1", "--quiet", "--json", str(self.folder / "m.json"), *more])

    @property
    def figures(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.folder / "m.json").read_text())
        return found


@pytest.fixture
def command(market: Market, tmp_path: Path) -> Command:
    return Command(market, tmp_path)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("adrank train: ")
    return lines[0]


def without_times(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name not in TIMES}


@pytest.mark.parametrize("model", [DIN, DQM], ids=["din", "dqm"])
def test_a_network(command: Command, capsys: pytest.CaptureFixture[str], model: dict[str, Any]) -> None:
    assert command(command.config(model), "--seed", "3") == 0
    figures = command.figures
    assert set(figures) == KEYS | {*TIMES, *SIZES, "seeds"}
    assert figures["train.samples_per_s"] > 100
    assert figures["valid.impressions"] == command.market.data.prepared.splits["valid"].impressions
    opened = open_checkpoint(command.out / "some-seed3")
    assert opened.metrics == {name: value for name, value in figures.items() if name != "seeds"}
    assert opened.seed == 3
    assert figures["model.parameters"] == sum(p.numel() for p in opened.network().parameters())
    printed = capsys.readouterr().out
    assert str(command.out / "some-seed3") in printed
    assert f"{figures['test.auc']:.4f}" in printed
    # It chose on validation: the figure reported is the best of the log.
    log = [json.loads(line) for line in (command.out / "some-seed3/training.jsonl").read_text().splitlines()]
    assert figures["valid.auc"] == max(entry["auc"] for entry in log)


def test_a_table(command: Command) -> None:
    assert command(command.config(QSCORE)) == 0
    assert set(command.figures) == KEYS | {"qscore.mean", "qscore.strength", "seeds"}
    size = command.market.data.prepared.splits["train"]
    assert command.figures["qscore.mean"] == pytest.approx(size.clicks / size.impressions)


def test_several_seeds_give_mean_and_deviation(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(command.config(DQM), "--seed", "1", "2", "3") == 0
    runs = [open_checkpoint(command.out / f"some-seed{seed}").metrics["test.auc"] for seed in (1, 2, 3)]
    assert command.figures["test.auc"] == pytest.approx(np.mean(runs))
    assert command.figures["test.auc.std"] == pytest.approx(np.std(runs, ddof=1))
    assert command.figures["test.auc.std"] > 0
    assert {f"{key}.std" for key in KEYS} <= set(command.figures)
    assert command.figures["seeds"] == 3
    assert "mean of 3 seeds" in capsys.readouterr().out


def test_the_deviation_is_that_of_a_sample() -> None:
    assert summarise([{"a": 1.0}, {"a": 3.0}]) == {"a": 2.0, "a.std": pytest.approx(2**0.5), "seeds": 2}
    assert summarise([{"a": 1.0}]) == {"a": 1.0, "seeds": 1}


def test_a_finished_run_is_taken_up_and_fresh_begins_again(command: Command) -> None:
    config = command.config(DQM)
    assert command(config) == 0
    first, weights = command.figures, command.out / "some-seed1/best.pt"
    written = weights.stat().st_mtime_ns
    assert command(config) == 0
    assert command.figures == first
    assert weights.stat().st_mtime_ns == written
    assert command(config, "--fresh") == 0
    assert weights.stat().st_mtime_ns > written
    assert without_times(command.figures) == without_times(first)


def test_an_interrupted_run_says_so_and_continues(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    whole, stopped = command.config(DIN, "whole"), command.config(DIN, "stopped")
    assert command(whole) == 0
    expected = without_times(command.figures)
    capsys.readouterr()
    with at_step(6, lambda: signal.raise_signal(signal.SIGINT)):
        assert command(stopped) == 130
    assert refusal(capsys) == "adrank train: interrupted; the same command continues from here"
    assert not (command.out / "stopped-seed1/metrics.json").exists()
    assert command(stopped) == 0
    assert without_times(command.figures) == expected


def test_a_folder_of_another_configuration_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(command.config(DQM)) == 0
    capsys.readouterr()
    changed = command.config(DQM, learning_rate=0.02)
    assert command(changed) == 2
    assert refusal(capsys) == (
        f"adrank train: {command.out / 'some-seed1'} holds a run with another configuration or other data; "
        "--fresh starts over"
    )
    assert command(changed, "--fresh") == 0


def test_a_folder_of_other_data_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    config = command.config(DQM)
    assert command(config) == 0
    head = command.out / "some-seed1/config.json"
    head.write_text(head.read_text().replace(command.market.data.prepared.fingerprint, "0" * 64))
    capsys.readouterr()
    assert command(config) == 2
    assert "other data" in refusal(capsys)


def test_a_value_out_of_range_is_named(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    config = command.config(DQM)
    config.write_text(config.read_text().replace("batch_size: 512", "batch_size: -512"))
    assert command(config) == 2
    line = refusal(capsys)
    assert str(config) in line
    assert "training.batch_size" in line
    assert "-512" in line


def test_missing_files_are_named(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path / "none.yaml") == 2
    assert str(tmp_path / "none.yaml") in refusal(capsys)
    config = command.config(DQM)
    assert command(config, data=tmp_path / "nowhere") == 2
    assert str(tmp_path / "nowhere/dataset.yaml") in refusal(capsys)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/dataset.yaml").write_text((command.market.raw / "dataset.yaml").read_text())
    assert command(config, data=tmp_path / "empty") == 2
    assert str(tmp_path / "empty") in refusal(capsys)
    assert not command.out.exists()


def test_a_run_that_bursts_ends_with_its_step(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(command.config(DQM, learning_rate=1e25)) == 2
    assert "the loss is" in refusal(capsys)
    assert not (command.out / "some-seed1/metrics.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "-1"], "-1 is too small, at least 0 is needed"),
        (["--threads", "0"], "0 is too small, at least 1 is needed"),
        (["--threads", "two"], "'two' is not an integer"),
    ],
)
def test_numbers_out_of_bounds_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["config.yaml", "--data", "data", *options])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_seed_named_twice_is_no_second_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.yaml", "--data", "data", "--seed", "1", "2", "1"]) == 2
    assert "--seed names a seed twice: [1, 2, 1]" in capsys.readouterr().err


def test_a_model_of_a_single_scene(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    scene = {"field": "scene", "value": "search"}
    config = command.config({"kind": "gwen", "embedding": 4, "hidden": [8]}, epochs=1, only=scene)
    assert command(config) == 0
    data = restricted(command.market.data, "scene", "search")
    for split in ("valid", "test"):
        assert command.figures[f"{split}.impressions"] == count(data, split)
        assert count(data, split) < command.market.data.prepared.splits[split].impressions
    opened = open_checkpoint(command.out / "some-seed1")
    again = evaluate(network_scorer(opened.network()), data, "test")
    assert again["auc"] == pytest.approx(command.figures["test.auc"], abs=1e-6)
    capsys.readouterr()
    wrong = command.config({"kind": "gwen"}, name="other", only={"field": "scene", "value": "shop"})
    assert command(wrong) == 2
    assert "scene has no value 'shop' in the training split" in refusal(capsys)
    assert not (command.out / "other-seed1").exists()
