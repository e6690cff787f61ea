"""A recipe from the first step to a checkpoint: what it writes, leaves alone and refuses, and how it goes on."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from export.assemble import Trained
from models.checkpoint import open_checkpoint
from models.compression import pipeline, registry
from models.compression.pipeline import Compressed, compress
from models.compression.recipe import FineTune, Recipe, read_recipe
from models.compression.report import flat, table
from models.compression.subject import CompressionError, Material, Subject
from models.config import ConfigError
from models.evaluation import evaluate, network_scorer
from tests.market import Market

TUNE: dict[str, Any] = {"step": "fine_tune", "epochs": 1, "learning_rate": 0.003}


def recipe(*steps: dict[str, Any]) -> Recipe:
    return Recipe.model_validate({"name": "small", "steps": list(steps)})


def tuned(trained: Trained, market: Market, out: Path, *steps: dict[str, Any]) -> Compressed:
    return compress(trained.finerank, recipe(*(steps or (TUNE,))), market.data, out, 1, progress=False)


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_comes_out_is_a_checkpoint_and_the_original_is_untouched(
    market: Market, trained: Trained, tmp_path: Path
) -> None:
    before = digest(trained.finerank.folder)
    found = tuned(trained, market, tmp_path / "out")
    assert digest(trained.finerank.folder) == before
    opened = open_checkpoint(tmp_path / "out")
    assert opened.config.name == f"{trained.finerank.config.name}-small"
    again = evaluate(network_scorer(opened.network()), market.data, "test")
    assert opened.metrics["test.auc"] == again["auc"]
    assert opened.metrics["model.bytes"] == found.record.steps[-1].figures["bytes"]
    assert json.loads((tmp_path / "out/compression.json").read_text())["original_weights"] == before["best.pt"]


def test_fine_tuning_moves_the_weights_and_is_never_worse_on_validation(
    market: Market, trained: Trained, tmp_path: Path
) -> None:
    found = tuned(trained, market, tmp_path / "out")
    first, last = found.record.steps[0].figures, found.record.steps[-1].figures
    assert last["valid.auc"] >= first["valid.auc"]
    moved = found.subject.network.state_dict()
    assert any(not torch.equal(value, moved[name]) for name, value in found.original.network.state_dict().items())


def test_fine_tuning_that_makes_it_worse_keeps_the_start(market: Market, trained: Trained, tmp_path: Path) -> None:
    found = tuned(trained, market, tmp_path / "out", TUNE | {"learning_rate": 3.0})
    assert found.record.steps[0].figures["valid.auc"] == found.record.steps[1].figures["valid.auc"]
    for name, value in found.original.network.state_dict().items():
        assert torch.equal(value, found.subject.network.state_dict()[name])


def test_finished_steps_are_not_taken_again(
    market: Market, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tuned(trained, market, tmp_path / "out")

    def refused(step: FineTune, subject: Subject, material: Material) -> Subject:
        raise AssertionError("taken again")

    monkeypatch.setattr(registry, "STEPS", {FineTune: refused})
    again = tuned(trained, market, tmp_path / "out")
    assert again.record == first.record
    with pytest.raises(AssertionError, match="taken again"):  # another recipe: nothing of the old one is used
        tuned(trained, market, tmp_path / "out", TUNE | {"learning_rate": 0.002})


def test_an_interrupted_step_goes_on_where_it_was(
    market: Market, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tuned(trained, market, tmp_path / "whole", TUNE, TUNE | {"learning_rate": 0.001})
    taken = registry.take
    seen: list[str] = []

    def interrupted(step: FineTune, subject: Subject, material: Material) -> Subject:
        seen.append(material.folder.name)
        if material.folder.name.startswith("1-") and seen.count(material.folder.name) == 1:
            raise KeyboardInterrupt
        return taken(step, subject, material)

    monkeypatch.setattr(pipeline, "take", interrupted)
    steps = (TUNE, TUNE | {"learning_rate": 0.001})
    with pytest.raises(KeyboardInterrupt):
        tuned(trained, market, tmp_path / "cut", *steps)
    found = tuned(trained, market, tmp_path / "cut", *steps)
    assert seen == ["0-fine_tune", "1-fine_tune", "1-fine_tune"]
    assert found.record.steps == whole.record.steps


def test_a_weight_that_is_not_finite_is_refused_by_name(
    market: Market, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(step: FineTune, subject: Subject, material: Material) -> Subject:
        state = {name: value.clone() for name, value in subject.network.state_dict().items()}
        state["mlp.out.bias"][0] = torch.nan
        return subject.rebuilt(subject.model, state)

    monkeypatch.setattr(registry, "STEPS", {FineTune: broken})
    with pytest.raises(
        CompressionError, match=r"step fine_tune: weight 'mlp.out.bias' holds values that are not finite"
    ):
        tuned(trained, market, tmp_path / "out")


def test_a_qscore_has_nothing_to_compress(market: Market, trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="a Qscore is a table of one number an ad"):
        compress(trained.qscore, recipe(TUNE), market.data, tmp_path / "out", 1, progress=False)


def test_a_folder_with_something_else_is_left_alone(market: Market, trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=f"{re.escape(str(tmp_path))} holds something else"):
        tuned(trained, market, tmp_path)
    with pytest.raises(ConfigError, match="the checkpoint that is to be made smaller"):
        tuned(trained, market, trained.finerank.folder)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_the_report_has_every_step(market: Market, trained: Trained, tmp_path: Path) -> None:
    found = tuned(trained, market, tmp_path / "out")
    figures = flat(found)
    assert figures["0.original.bytes"] == figures["1.fine_tune.bytes"] > 0
    lines = table(found.record.steps).splitlines()
    assert [line.split()[0] for line in lines] == ["step", "original", "fine_tune"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nsteps: []\n", "steps: Tuple should have at least 1 item"),
        ("name: a\nsteps:\n  - {step: shrink}\n", "steps.0: Input tag 'shrink'"),
        ("name: a\nsteps:\n  - {step: fine_tune, epoch: 1}\n", "steps.0.fine_tune.epoch: Extra inputs"),
        (
            "name: a\nsteps:\n  - {step: fine_tune, epochs: 0}\n",
            "steps.0.fine_tune.epochs: Input should be greater than 0",
        ),
        ("name: A b\nsteps:\n  - {step: fine_tune}\n", "name: String should match"),
    ],
)
def test_a_wrong_recipe_is_refused_with_file_key_and_value(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}: {said}")


def test_every_recipe_of_the_project_can_be_read() -> None:
    paths = sorted(Path("models/configs/recipes").glob("*.yaml"))
    assert paths
    assert all(read_recipe(path).steps for path in paths)
