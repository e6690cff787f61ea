"""The comparison on new ads: every model on the same rows, groups that add up, figures that are those of the scores."""

import argparse
from pathlib import Path

import pytest

from benchmarks import cold_ads
from benchmarks.cold_ads import FULL, MODELS, OURS, REFERENCES, of_size, run
from models.checkpoint import open_checkpoint
from models.cold_ads import GROUPS, groups_of, shown_in_training
from models.data.prepared import find_prepared
from models.evaluate import scorer
from models.evaluation import score_split
from models.metrics import auc

TINY = cold_ads.QUICK.model_copy(update={"ads": 200, "users": 200, "brands": 50, "impressions": 6_000})


def test_a_small_version_runs_and_its_figures_are_those_of_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold_ads, "QUICK", TINY)
    monkeypatch.setattr(cold_ads, "REPLICATES", 20)
    found = run(argparse.Namespace(quick=True, out=tmp_path, seeds=[1, 2], models=MODELS))
    figures = found.figures
    sizes = [figures[f"cold_ads.{group}.impressions"] for group in GROUPS]
    assert sizes[0] > 50
    assert sum(sizes) == figures["cold_ads.all.impressions"]
    assert [row[0] for row in found.tables[0].rows] == [*GROUPS, "all"]
    checkpoint = open_checkpoint(tmp_path / "quick/checkpoints/marketplace-dicm-image-seed1")
    data = find_prepared(tmp_path / "quick/data", checkpoint.data_fingerprint)
    scored = score_split(scorer(checkpoint), data, "test")
    never = groups_of(shown_in_training(data))[scored.rows] == 0
    expected = auc(scored.labels[never], scored.scores[never])
    assert figures["cold_ads.never.dicm-image.auc"] == pytest.approx(expected, abs=1e-6)
    for ours in OURS:
        for other in REFERENCES:
            key = f"cold_ads.never.{ours}-{other}.dauc"
            apart = figures[f"cold_ads.never.{ours}.auc"] - figures[f"cold_ads.never.{other}.auc"]
            assert figures[key] == pytest.approx(apart, abs=1e-9)
            assert figures[f"{key}_low"] <= figures[f"{key}_high"]
    assert not (tmp_path / "quick/checkpoints/marketplace-gwen-seed2").exists(), "one seed when quick"


def test_a_size_keeps_what_an_ad_is_shown() -> None:
    found = of_size(500)
    assert (found.ads, found.users, found.impressions) == (500, 500, 40_000)
    assert found.effects == FULL.effects
    assert of_size(FULL.ads) == FULL


def test_there_is_nothing_to_show_without_dicm(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--models gwen din: dicm is missing"):
        run(argparse.Namespace(quick=True, out=tmp_path, seeds=[1], models=["gwen", "din"]))
