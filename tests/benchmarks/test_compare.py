"""Configurations compared on the same rows, as a whole and by value; a model of one value on its own rows only."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks import compare
from benchmarks.leaderboard.runs import scores_of
from benchmarks.report import Report
from models.checkpoint import open_checkpoint
from models.data.batches import batches
from models.labels import labelled
from models.metrics import auc
from tests.market import Market, make_config

MODEL: dict[str, Any] = {"kind": "mtl", "scene": "scene", "embedding": 4, "hidden": [8]}
ONLY = {"field": "scene", "value": "feed"}


def write(folder: Path, name: str, **training: Any) -> Path:
    config = make_config(f"marketplace-{name}", MODEL, epochs=1, evaluations=1, **training)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def measured(market: Market, folder: Path, *configs: Path, **changes: Any) -> Report:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    options = ["--data", str(market.raw), "--dataset", "marketplace", "--prepared", str(market.root), "--threads", "1"]
    options += [
        "--configs",
        *map(str, configs),
        "--reference",
        "one",
        "--out",
        str(folder / "runs"),
        "--seeds",
        "1",
        "2",
    ]
    arguments = parser.parse_args([*options, "--replicates", "20", "--rows", "100"])
    return compare.run(argparse.Namespace(**vars(arguments) | {"quick": False} | changes))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


def test_every_model_on_the_rows_it_reads(market: Market, place: Path) -> None:
    configs = [write(place, "one"), write(place, "two", learning_rate=0.02), write(place, "feed", only=ONLY)]
    found = measured(market, place, *configs, by="scene")
    figures = found.figures
    size = market.data.prepared.splits["test"]
    assert figures["compare.all.rows"] == size.impressions
    assert figures["compare.all.rate"] == pytest.approx(size.clicks / size.impressions)
    assert sum(figures[f"compare.scene.{s}.rows"] for s in ("feed", "search", "detail")) == size.impressions
    assert "compare.all.feed.auc" not in figures
    assert "compare.scene.search.feed.auc" not in figures

    runs = {
        name: [open_checkpoint(place / f"runs/marketplace-{name}-seed{s}") for s in (1, 2)] for name in ("one", "two")
    }
    means = {name: np.mean([each.metrics["test.auc"] for each in own]) for name, own in runs.items()}
    for name, mean in means.items():
        assert figures[f"compare.all.{name}.auc"] == pytest.approx(mean)
        valid = np.mean([each.metrics["valid.auc"] for each in runs[name]])
        assert figures[f"compare.all.{name}.valid_auc"] == pytest.approx(valid)
    assert figures["compare.all.two.dauc"] == pytest.approx(means["two"] - means["one"])
    low, high = (figures[f"compare.all.two.dauc_{end}"] for end in ("low", "high"))
    assert low < figures["compare.all.two.dauc"] < high
    assert "compare.all.one.dauc" not in figures

    of_feed = market.data.vocabularies["scene"].id_of("feed")
    each = [batch.context[batch.request, 0].numpy() == of_feed for batch in batches(market.data, "test", 512)]
    mine = np.concatenate(each)
    expected = []
    for seed in (1, 2):
        checkpoint = open_checkpoint(place / f"runs/marketplace-feed-seed{seed}")
        scored = scores_of(checkpoint, labelled(checkpoint.config, market.data))
        expected.append(auc(scored.labels[mine], scored.scores[mine]))
        assert checkpoint.metrics["test.auc"] == pytest.approx(expected[-1]), "its own metrics are of its rows"
    assert figures["compare.scene.feed.feed.auc"] == pytest.approx(np.mean(expected))
    assert [row[:4:3] for row in found.tables[0].rows if row[0] in ("all", "scene.feed")] == [
        ("all", "one"), ("all", "two"), ("scene.feed", "feed"), ("scene.feed", "one"), ("scene.feed", "two")
    ]  # fmt: skip


def test_models_of_different_labels_are_not_compared(market: Market, place: Path) -> None:
    configs = [write(place, "one"), write(place, "like", label="like")]
    with pytest.raises(ValueError, match="like has scored other impressions or another label than one"):
        measured(market, place, *configs)
    alone = measured(market, place, *configs[1:], reference="like")
    size = market.data.prepared.splits["test"]
    assert alone.figures["compare.all.rate"] == pytest.approx(size.further["like"] / size.impressions)
    assert alone.tables[0].title.startswith("like on the test split")


def test_what_is_missing_is_named(market: Market, place: Path) -> None:
    with pytest.raises(ValueError, match="--data, --configs and --reference are needed"):
        measured(market, place, write(place, "one"), reference=None)
    with pytest.raises(ValueError, match="the reference 'three' is not among the models: one"):
        measured(market, place, write(place, "one"), reference="three")
    with pytest.raises(ValueError, match="'city' is no categorical context field, known: scene"):
        measured(market, place, write(place, "one"), by="city")
