"""Other checkpoints as teachers: what is learnt from them, how a recipe with them goes on, and whom it refuses."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from export.assemble import Trained
from models.checkpoint import Checkpoint, digest, open_checkpoint
from models.compression import registry
from models.compression.pipeline import Compressed, compress
from models.compression.recipe import FineTune, Recipe
from models.compression.subject import CompressionError, Material, Subject
from models.compression.teachers import Teachers, open_teachers
from models.evaluation import network_scorer, score_split
from models.train import train_one
from tests.market import DIN, Market, make_config

TUNE: dict[str, Any] = {"step": "fine_tune", "learning_rate": 0.01, "teacher": 1000.0, "evaluations": 1}


@pytest.fixture(scope="module")
def other(market: Market, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The same network with another seed, hardly trained: far from the original."""
    folder = tmp_path_factory.mktemp("teachers") / "din-seed2"
    train_one(make_config("tiny-din", DIN, epochs=1, evaluations=1), market.data, folder, seed=2, progress=False)
    return open_checkpoint(folder)


def made(trained: Trained, market: Market, out: Path, teachers: Teachers, **keys: Any) -> Compressed:
    recipe = Recipe.model_validate({"name": "taught", "steps": [TUNE | keys]})
    return compress(trained.finerank, recipe, market.data, out, 1, progress=False, teachers=teachers)


def test_the_record_names_them(market: Market, trained: Trained, other: Checkpoint, tmp_path: Path) -> None:
    teachers = open_teachers([trained.finerank.folder, other.folder], trained.finerank)
    found = made(trained, market, tmp_path / "out", teachers)
    said = json.loads((tmp_path / "out/compression.json").read_text())["teachers"]
    assert [(each["name"], each["seed"]) for each in said] == [(trained.finerank.folder.name, 1), ("din-seed2", 2)]
    assert [each["weights"] for each in said] == [
        digest(folder / "best.pt") for folder in (trained.finerank.folder, other.folder)
    ]
    assert found.record.teachers == teachers.known


def test_the_pupil_comes_to_score_as_the_teacher_does(
    market: Market, trained: Trained, other: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Material] = []
    taken = registry.STEPS[FineTune]

    def watched(step: FineTune, subject: Subject, material: Material) -> Subject:
        seen.append(material)
        return taken(step, subject, material)

    monkeypatch.setattr(registry, "STEPS", {FineTune: watched})
    found = made(
        trained, market, tmp_path / "out", open_teachers([other.folder], trained.finerank), epochs=6, learning_rate=0.03
    )
    assert len(seen[0].teachers) == 1
    # The original may have the better AUC and be kept; where training ended is in the step's folder.
    start, pupil, teacher = trained.finerank.network(), found.original.network, other.network()
    last = torch.load(tmp_path / "out/steps/0-fine_tune/last.pt", weights_only=True)["network"]
    pupil.load_state_dict({name.removeprefix("pupil."): value for name, value in last.items()})
    scores = [score_split(network_scorer(each), market.data, "valid").scores for each in (start, pupil, teacher)]
    assert abs(scores[1] - scores[2]).mean() < 0.5 * abs(scores[0] - scores[2]).mean()


def test_a_step_is_taken_again_for_other_teachers_only(
    market: Market, trained: Trained, other: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = open_teachers([other.folder], trained.finerank)
    first = made(trained, market, tmp_path / "out", teachers)

    def refused(step: FineTune, subject: Subject, material: Material) -> Subject:
        raise AssertionError("taken again")

    monkeypatch.setattr(registry, "STEPS", {FineTune: refused})
    again = made(trained, market, tmp_path / "out", open_teachers([other.folder], trained.finerank))
    assert again.record == first.record
    for changed in (Teachers(), open_teachers([other.folder, trained.finerank.folder], trained.finerank)):
        with pytest.raises(AssertionError, match="taken again"):
            made(trained, market, tmp_path / "out", changed)


def test_who_cannot_teach_is_refused_by_name(
    market: Market, trained: Trained, other: Checkpoint, tmp_path: Path
) -> None:
    original = trained.finerank
    foreign = dataclasses.replace(original, data_fingerprint="f" * 64)
    with pytest.raises(
        CompressionError,
        match=f"teacher {re.escape(str(other.folder))} was trained on data [0-9a-f]{{12}}, .* on f{{12}}:",
    ):
        open_teachers([other.folder], foreign)
    schema = original.schema.model_copy(update={"ad": original.schema.user})
    with pytest.raises(CompressionError, match=r"din-seed2 has another 'ad' in its schema"):
        open_teachers([other.folder], dataclasses.replace(original, schema=schema))
    config = make_config("tiny-like", DIN, label="like")
    with pytest.raises(CompressionError, match=r"din-seed2 scores 'click', .* scores 'like'"):
        open_teachers([other.folder], dataclasses.replace(original, config=config))
    with pytest.raises(CompressionError, match=r"din-seed2: the same weights as teacher din-seed2"):
        open_teachers([other.folder, other.folder], original)
    teachers = open_teachers([other.folder], original)
    with pytest.raises(
        CompressionError, match=r"recipe 'taught' has no step fine_tune with a teacher; given are din-s"
    ):
        made(trained, market, tmp_path / "out", teachers, teacher=0.0)
    assert not (tmp_path / "out").exists()


def test_to_deal_needs_somebody_to_ask() -> None:
    with pytest.raises(ValueError, match="dealt is about what a teacher is asked, but teacher is 0"):
        FineTune.model_validate({"step": "fine_tune", "dealt": True})
