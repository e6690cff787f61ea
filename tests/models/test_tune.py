"""Searches: always on validation, pruned, continued as if never interrupted."""

import fcntl
import json
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from optuna.trial import FrozenTrial, TrialState

from models import study as searching
from models.config import ConfigError, read_config
from models.evaluation import evaluate
from models.train import main as train
from models.tune import evaluated_often, main
from tests.market import DQM, QSCORE, Market, make_config
from tests.models.test_training import at_step

SPACE: dict[str, Any] = {
    "training.learning_rate": {"kind": "float", "low": 0.0005, "high": 0.05, "log": True},
    "model.hidden": {"kind": "choice", "values": [[12], [6, 3]]},
    "model.dimension": {"kind": "int", "low": 4, "high": 8, "step": 2},
}


class Command:
    def __init__(self, market: Market, folder: Path) -> None:
        self.market, self.folder = market, folder

    def config(self, name: str = "some", model: dict[str, Any] = DQM, **settings: Any) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(make_config(name, model, **{"epochs": 1} | settings).model_dump(mode="json")))
        return path

    def __call__(self, config: Path, *more: str, trials: int = 3, space: dict[str, Any] = SPACE) -> int:
        (self.folder / "space.yaml").write_text(yaml.safe_dump({"tune": space}))
        places = [
            "--data",
            str(self.market.raw),
            "--prepared",
            str(self.market.root),
            "--out",
            str(self.folder / "tune"),
        ]
        options = ["--space", str(self.folder / "space.yaml"), "--trials", str(trials), "--threads", "1", "--quiet"]
        return main([str(config), *places, *options, "--evaluations", "2", *more])

    def trials(self, name: str = "some") -> list[FrozenTrial]:
        storage = optuna.storages.RDBStorage(f"sqlite:///{self.folder / 'tune' / name / 'study.sqlite'}")
        found = optuna.load_study(study_name=name, storage=storage).trials
        storage.remove_session()
        storage.engine.dispose()
        return found


@pytest.fixture
def command(market: Market, tmp_path: Path) -> Command:
    return Command(market, tmp_path)


def done(trials: list[FrozenTrial]) -> list[tuple[dict[str, Any], str, Any, Any]]:
    return [
        (trial.params, trial.state.name, trial.values, trial.intermediate_values)
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    ]


def test_the_best_configuration_is_written_and_trains_to_that_value(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    config = command.config()
    assert command(config, "--json", str(command.folder / "m.json")) == 0
    printed = capsys.readouterr().out
    best_file = command.folder / "tune/some/best.yaml"
    best = read_config(best_file)
    trials = command.trials()
    value = max(trial.value for trial in trials if trial.value is not None)
    assert f"valid auc {value:.4f}" in printed
    assert str(best_file) in printed
    assert json.loads((command.folder / "m.json").read_text())["tune.some.best"] == pytest.approx(value)
    assert best.name == "some"
    assert best_file.read_text().startswith("# adrank tune, best of 3 trials (")
    # training with it gives the figure of the search: the same evaluations, the same seed
    figures = command.folder / "again.json"
    places = ["--data", str(command.market.raw), "--prepared", str(command.market.root), "--threads", "1", "--quiet"]
    out = ["--out", str(command.folder / "checkpoints"), "--json", str(figures)]
    assert train([str(best_file), *places, *out]) == 0
    assert json.loads(figures.read_text())["valid.auc"] == pytest.approx(value, abs=1e-9)
    assert sorted(path.name for path in (command.folder / "tune/some").iterdir()) == [
        "best.yaml",
        "lock",
        "study.sqlite",
    ]


def test_the_first_trial_is_the_configuration_itself(command: Command) -> None:
    assert command(command.config(), trials=1) == 0
    (first,) = command.trials()
    assert first.params == {"training.learning_rate": 0.01, "model.hidden": "[12]", "model.dimension": 6}


def test_the_test_split_is_never_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def noting(score: Any, data: Any, split: str, *more: Any) -> dict[str, float]:
        seen.add(split)
        return evaluate(score, data, split, *more)

    monkeypatch.setattr("models.training.evaluate", noting)
    monkeypatch.setattr("models.train.evaluate", noting)
    assert command(command.config(), trials=2) == 0
    assert seen == {"valid"}


def test_interrupted_and_continued_makes_the_same_trials(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    whole, stopped = command.config("whole"), command.config("stopped")
    assert command(whole, trials=4) == 0
    capsys.readouterr()
    with at_step(14, lambda: signal.raise_signal(signal.SIGINT)):
        assert command(stopped, trials=4) == 130
    assert capsys.readouterr().err == "adrank tune: interrupted; the same command continues from here\n"
    assert any(path.is_dir() for path in (command.folder / "tune/stopped").iterdir())
    assert command(stopped, trials=4) == 0
    assert TrialState.FAIL in {trial.state for trial in command.trials("stopped")}
    assert done(command.trials("stopped")) == done(command.trials("whole"))


def test_a_finished_search_is_taken_up_and_more_trials_continue_it(command: Command) -> None:
    config = command.config()
    assert command(config, trials=2) == 0
    before = done(command.trials())
    assert command(config, trials=2) == 0
    assert done(command.trials()) == before
    assert command(config, trials=3) == 0
    assert done(command.trials())[:2] == before
    assert len(command.trials()) == 3
    assert command(config, "--fresh", trials=1) == 0
    assert len(command.trials()) == 1


def test_poor_trials_are_pruned(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is below the median of the others after its first evaluation is not trained on."""
    monkeypatch.setattr(searching, "STARTUP", 2)
    rates = {"training.learning_rate": {"kind": "choice", "values": [0.01, 0.000001]}}
    assert command(command.config(monitor="logloss"), trials=6, space=rates) == 0
    trials = command.trials()
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert all(trial.params == {"training.learning_rate": "1e-06"} for trial in pruned)
    assert all(len(trial.intermediate_values) == 1 for trial in pruned)


def test_no_trial_is_pruned_before_its_warmup(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "STARTUP", 2)
    rates = {"training.learning_rate": {"kind": "choice", "values": [0.01, 0.000001]}}
    assert command(command.config(monitor="logloss"), "--warmup", "2", trials=6, space=rates) == 0
    trials = command.trials()
    assert {trial.state for trial in trials} == {TrialState.PRUNED, TrialState.COMPLETE}
    assert all(list(trial.intermediate_values) == [1, 2] for trial in trials)


def test_several_seeds_are_averaged(command: Command) -> None:
    assert command(command.config(), "--seeds", "1", "2", trials=1) == 0
    (trial,) = command.trials()
    first, second = (
        [v for step, v in trial.intermediate_values.items() if (step > 2) is late] for late in (False, True)
    )
    assert trial.value == pytest.approx((max(first) + max(second)) / 2)


def test_a_small_log_loss_is_better(command: Command) -> None:
    assert command(command.config(monitor="logloss"), trials=3) == 0
    values = [trial.value for trial in command.trials() if trial.value is not None]
    assert read_config(command.folder / "tune/some/best.yaml").training.learning_rate == pytest.approx(
        min((trial for trial in command.trials() if trial.value is not None), key=lambda t: t.value or 0.0).params[
            "training.learning_rate"
        ]
    )
    assert len(set(values)) > 1


def test_a_trial_that_bursts_is_a_bad_trial(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    config = command.config(learning_rate=1e25)
    assert command(config, trials=1, space={"training.learning_rate": {"kind": "choice", "values": [1e25, 1e26]}}) == 1
    said = capsys.readouterr()
    assert "failed: epoch 1, step" in said.out
    assert said.err == "adrank tune: none of 1 trials came to its end\n"


def test_another_search_in_the_same_folder_is_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    config = command.config()
    assert command(config, trials=1) == 0
    capsys.readouterr()
    assert command(config, "--seeds", "2", trials=1) == 2
    folder = command.folder / "tune/some"
    assert capsys.readouterr().err == f"adrank tune: {folder} holds a search with another seeds; --fresh starts over\n"
    assert command(command.config(epochs=2), trials=1, space={"model.dimension": SPACE["model.dimension"]}) == 2
    assert "another config, space;" in capsys.readouterr().err


def test_two_at_once_are_refused(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    folder = command.folder / "tune/some"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert command(command.config()) == 2
    assert capsys.readouterr().err == f"adrank tune: {folder}: another process is searching here\n"


def test_a_table_is_not_tuned(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(command.config(model=QSCORE)) == 2
    assert "a Qscore is counted, not trained" in capsys.readouterr().err


def test_a_seed_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config.yaml", "--data", "data", "--trials", "1", "--seeds", "3", "3"]) == 2
    assert "--seeds names a seed twice: [3, 3]" in capsys.readouterr().err


def test_more_evaluations_leave_the_patience_as_long() -> None:
    config = make_config("some", DQM, evaluations=1, patience=2)
    often = evaluated_often(config, 4)
    assert (often.training.evaluations, often.training.patience) == (4, 8)
    assert evaluated_often(often, 3) == often


def test_the_dataset_is_named_from_where_the_configuration_is_written(command: Command) -> None:
    """The same file, from another folder."""
    (command.folder / "own").mkdir()
    (command.folder / "own/here.yaml").write_text((command.market.raw / "dataset.yaml").read_text())
    config = command.config().rename(command.folder / "own/some.yaml")
    config.write_text(config.read_text().replace("dataset: dataset.yaml", "dataset: here.yaml"))
    written = command.folder / "else.yaml"
    assert command(config, "--write", str(written), trials=1) == 0
    assert read_config(written).dataset == "own/here.yaml"
    with pytest.raises(ConfigError):
        read_config(command.folder / "tune/some/best.yaml")
