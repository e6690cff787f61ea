"""`adrank leaderboard` on a tiny marketplace: figures, taking up, continuing, refusals."""

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.leaderboard.command import main
from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.page import CLOSE, OPEN
from benchmarks.leaderboard.runs import SCORES, Run, scores_of
from models.checkpoint import open_checkpoint
from models.config import ConfigError
from models.metrics import auc, gauc, log_loss
from tests.market import DIN, DQM, QSCORE, Market, make_config
from tests.models.test_training import at_step

MODELS = {"din": DIN, "dqm": DQM, "qscore": QSCORE}


class Command:
    def __init__(self, market: Market, folder: Path) -> None:
        self.market, self.folder, self.out = market, folder, folder / "checkpoints"
        for model, settings in MODELS.items():
            config = make_config(f"marketplace-{model}", settings, epochs=1)
            (folder / f"marketplace-{model}.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))

    def __call__(self, *more: str) -> int:
        places = ["--data", str(self.market.raw), "--prepared", str(self.market.root), "--out", str(self.out)]
        configs = ["--dataset", "marketplace", "--configs", str(self.folder / "marketplace-*.yaml")]
        small = ["--replicates", "40", "--rounds", "2", "--threads", "1", "--quiet"]
        return main([*places, *configs, *small, "--json", str(self.folder / "m.json"), *more])

    @property
    def figures(self) -> dict[str, float]:
        found: dict[str, float] = json.loads((self.folder / "m.json").read_text())
        return found


@pytest.fixture(scope="module")
def made(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Command:
    """The command, run once with a page to write."""
    command = Command(market, tmp_path_factory.mktemp("board"))
    page = command.folder / "models.md"
    page.write_text(f"{OPEN}\n{CLOSE}\n")
    assert command("--seeds", "1", "2", "--page", str(page)) == 0
    return command


@pytest.fixture
def command(made: Command, tmp_path: Path) -> Command:
    """The same with a folder of its own, nothing trained."""
    return Command(made.market, tmp_path)


def runs(command: Command, model: str) -> list[Run]:
    opened = (open_checkpoint(command.out / f"marketplace-{model}-seed{seed}") for seed in (1, 2))
    return [Run(each, command.market.data, scores_of(each, command.market.data)) for each in opened]


def test_figures_are_those_of_the_checkpoints(made: Command) -> None:
    found = made.figures
    for model in MODELS:
        own = runs(made, model)
        y, users = own[0].scored.labels, own[0].scored.users
        for metric, of in (
            ("auc", auc),
            ("logloss", log_loss),
            ("gauc", lambda y, p, users=users: gauc(y, p, users).value),
        ):
            values = [of(y, run.scored.scores) for run in own]
            assert found[f"marketplace.{model}.{metric}"] == pytest.approx(np.mean(values), abs=1e-9)
            assert found[f"marketplace.{model}.{metric}_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    size = made.market.data.prepared.splits["test"]
    assert (found["marketplace.rows"], found["marketplace.seeds"]) == (size.impressions, 2)
    assert found["marketplace.best_auc"] > 0.5


def test_differences_are_against_the_reference_with_their_interval(made: Command) -> None:
    found = made.figures
    for model in ("dqm", "qscore"):
        for metric in ("auc", "gauc", "logloss"):
            key = f"marketplace.{model}.d{metric}"
            expected = found[f"marketplace.{model}.{metric}"] - found[f"marketplace.din.{metric}"]
            assert found[key] == pytest.approx(expected, abs=1e-9)
            assert found[f"{key}_low"] < found[f"{key}_high"]
    assert not [key for key in found if key.startswith("marketplace.din.d")]


def test_size_and_time_are_there_where_a_model_has_them(made: Command) -> None:
    found = made.figures
    for model in ("din", "dqm"):
        network = open_checkpoint(made.out / f"marketplace-{model}-seed1").network()
        assert found[f"marketplace.{model}.parameters"] == sum(p.numel() for p in network.parameters())
        assert found[f"marketplace.{model}.ms_500"] > 0
        assert found[f"marketplace.{model}.epoch_s"] > 0
    assert {"ms_500", "epoch_s", "parameters"}.isdisjoint(key.split(".")[-1] for key in found if ".qscore." in key)


def test_multiply_adds_are_taken_from_the_checkpoint_where_it_has_them(made: Command) -> None:
    own = {model: runs(made, model) for model in MODELS}
    found = figures("some", own, "din", replicates=3)
    assert {key: value for key, value in found.items() if key.endswith("multiply_adds")} == {
        f"some.{model}.multiply_adds": own[model][0].checkpoint.metrics["model.multiply_adds"]
        for model in ("din", "dqm")
    }


def test_models_that_scored_other_rows_have_no_difference(made: Command) -> None:
    own = {model: runs(made, model) for model in MODELS}
    other = own["dqm"][1].scored
    own["dqm"][1] = replace(own["dqm"][1], scored=replace(other, users=other.users[::-1]))
    found = figures("some", own, "din", replicates=3)
    assert "some.dqm.auc" in found
    assert "some.dqm.dauc" not in found
    assert "some.qscore.dauc" in found


def test_the_page_and_its_pictures_are_written(made: Command) -> None:
    text = (made.folder / "models.md").read_text()
    assert "### Simulated marketplace" in text
    assert f"{made.figures['marketplace.din.auc']:.4f} ±" in text
    for name in ("gauc", "time"):
        assert (made.folder / f"pictures/leaderboard-marketplace-{name}.svg").is_file()


def test_finished_runs_are_taken_up(made: Command, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(made.out, command.out)
    (command.out / "marketplace-dqm-seed2" / SCORES).unlink()
    shutil.rmtree(command.out / "marketplace-din-seed1")
    weights = command.out / "marketplace-din-seed2/best.pt"
    written = weights.stat().st_mtime_ns
    assert command("--seeds", "1", "2") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert [line.split("]")[0] for line in lines] == [f"[{i}/6" for i in range(1, 7)]
    assert [line.endswith("(taken up)") for line in lines] == [False, True, True, True, True, True]
    assert weights.stat().st_mtime_ns == written
    same = {key for key in made.figures if not key.endswith(("ms_500", "epoch_s"))}
    assert {key: command.figures[key] for key in same} == {key: made.figures[key] for key in same}


def test_an_interrupted_run_says_so(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with at_step(3, lambda: signal.raise_signal(signal.SIGINT)):
        assert command("--seeds", "1") == 130
    assert capsys.readouterr().err == "adrank leaderboard: interrupted; the same command continues from here\n"
    assert (command.out / "marketplace-din-seed1/last.pt").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--seeds", "1", "1"], "--seeds names a seed twice: [1, 1]"),
        (["--reference", "fm"], "the reference 'fm' is not among the models: din, dqm, qscore"),
        (["--page", "nowhere.md"], "nowhere.md"),
        (["--dataset", "kuairand"], "does not begin with kuairand-"),
    ],
)
def test_bad_input_is_refused_before_training(
    command: Command, options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert command(*options) == 2
        said = capsys.readouterr().err
    except OSError as error:  # a file that is not there: answered by `adrank` itself
        said = str(error)
    assert complaint in said
    assert not command.out.exists()


def test_a_folder_of_another_run_is_refused_before_training(
    made: Command, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even when others come first, which would be trained for hours."""
    last = command.out / "marketplace-qscore-seed2"
    shutil.copytree(made.out / "marketplace-dqm-seed2", last)
    assert command("--seeds", "1", "2") == 2
    assert capsys.readouterr().err == (
        f"adrank leaderboard: {last} holds a run with another configuration or other data; --fresh starts over with "
        "`adrank train`, another --out leaves it as it is\n"
    )
    assert [path.name for path in command.out.iterdir()] == [last.name]


def test_kept_scores_that_cannot_be_read_are_named(made: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(made.out / "marketplace-dqm-seed1", folder)
    (folder / SCORES).write_bytes(b"nothing")
    opened: Any = open_checkpoint(folder)
    with pytest.raises(ConfigError, match=f"{folder / SCORES}: no scores"):
        scores_of(opened, made.market.data)
