"""Recipes over several seeds: figures are those of the networks, kept scores are used again, nothing else is."""

import argparse
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks import recipes
from benchmarks.report import Report
from export.assemble import Trained
from models.checkpoint import open_checkpoint
from models.compression.subject import Subject
from models.evaluation import evaluate, network_scorer
from models.networks.cost import cost_of
from tests.market import Market
from tests.models.compression.subjects import taken

SVD = 'name: svd\nsteps:\n  - {step: factorise, method: svd, layers: {"mlp.layers.0": 2}}\n  - {step: fine_tune}\n'
AFM = SVD.replace("svd", "afm")


@pytest.fixture
def prefix(trained: Trained, tmp_path: Path) -> str:
    """Two seeds of one network, the second with other weights."""
    for seed in (1, 2):
        folder = tmp_path / f"tiny-seed{seed}"
        shutil.copytree(trained.finerank.folder, folder)
        head = (folder / "config.json").read_text()
        (folder / "config.json").write_text(head.replace('"seed": 1', f'"seed": {seed}'))
    state = torch.load(folder / "best.pt", weights_only=True)
    state["mlp.layers.0.weight"] *= 1.1
    torch.save(state, folder / "best.pt")
    return str(tmp_path / "tiny")


def measured(prefix: str, market: Market, *texts: str, steps: int | None = None, pairs: bool = False) -> Report:
    folder = Path(prefix).parent
    files = []
    for text in texts:
        files.append(folder / f"{text.split()[1]}.yaml")
        files[-1].write_text(text)
    parser = argparse.ArgumentParser()
    recipes.add_arguments(parser)
    options = ["--checkpoints", prefix, "--seeds", "1", "2", "--prepared", str(market.data.folder), "--recipes"]
    arguments = parser.parse_args([*options, *map(str, files), "--out", str(folder / "kept")])
    arguments.steps, arguments.pairs = steps, pairs
    return recipes.run(arguments)


def test_figures_are_those_of_the_networks(prefix: str, market: Market, tmp_path: Path) -> None:
    found = measured(prefix, market, AFM, steps=1).figures
    aucs, costs = [], []
    for seed in (1, 2):
        checkpoint = open_checkpoint(Path(f"{prefix}-seed{seed}"))
        before = Subject(checkpoint.config, checkpoint.network())
        after = taken(market, tmp_path, before, step="factorise", layers={"mlp.layers.0": 2})
        aucs.append([evaluate(network_scorer(each.network), market.data, "test")["auc"] for each in (before, after)])
        costs.append(cost_of(after.network).candidate)
    assert found["tiny.afm.1.multiply_adds"] == sum(costs) / 2
    assert found["tiny.afm.1.auc"] == pytest.approx((aucs[0][1] + aucs[1][1]) / 2, abs=1e-6)
    assert found["tiny.afm.1.dauc"] == pytest.approx(sum(b - a for a, b in aucs) / 2, abs=1e-6)
    assert found["tiny.afm.1.dauc_low"] <= found["tiny.afm.1.dauc"] <= found["tiny.afm.1.dauc_high"]
    assert found["tiny.afm.0.dgauc"] == 0


def test_recipes_are_compared_two_by_two_after_every_step(prefix: str, market: Market) -> None:
    found = measured(prefix, market, SVD, AFM, pairs=True)
    for step in (1, 2):
        between = found.figures[f"tiny.afm-svd.{step}.dauc"]
        one, two = (found.figures[f"tiny.{name}.{step}.dauc"] for name in ("svd", "afm"))
        assert between == pytest.approx(two - one, abs=1e-12)
    assert [row[:2] for row in found.tables[1].rows] == [("afm - svd", 1), ("afm - svd", 2)]
    lines = [("original", 0), ("svd", 1), ("svd", 2), ("afm", 1), ("afm", 2)]
    assert [row[:2] for row in found.tables[0].rows] == lines


def test_what_was_measured_is_not_measured_again(prefix: str, market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    first = measured(prefix, market, SVD).figures
    kept = Path(prefix).parent / "kept"
    assert len(list(kept.iterdir())) == 6
    monkeypatch.setattr(recipes, "take", None)
    assert measured(prefix, market, SVD).figures == first
    with pytest.raises(TypeError):
        measured(prefix, market, SVD.replace(": 2", ": 3"))


def test_what_does_not_fit_is_said(prefix: str, market: Market) -> None:
    with pytest.raises(ValueError, match="--pairs needs an even number of recipes, there are 1"):
        measured(prefix, market, SVD, pairs=True)
    with pytest.raises(ValueError, match="factorise: there is no linear layer"):
        measured(prefix, market, SVD.replace("layers.0", "layers.9"))
    with pytest.raises(ValueError, match=r"none-seed1.config.json: cannot be read"):
        measured(str(Path(prefix).parent / "none"), market, SVD)
