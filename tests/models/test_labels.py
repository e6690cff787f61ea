"""A run of another label: what it learns, what its metrics are called, and that an interruption changes nothing."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from models import calibrate, evaluate
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError, TrainConfig
from models.data.batches import batches
from models.data.prepared import find_prepared
from models.data.spec import DataError
from models.evaluation import score_split
from models.labels import labelled, prefix_of
from models.metrics import auc
from models.train import main, train_one
from models.training import train
from tests.market import DIN, QSCORE, Market, make_config
from tests.models.test_training import EVERYTHING, at_step, left_in, same, steps_of

MTL: dict[str, Any] = {"kind": "mtl", "embedding": 4, "scene": "scene", "hidden": [12, 6], "position_bias": True}


def asking(label: str, transfer: str, related: str, **training: Any) -> TrainConfig:
    model = MTL | {"related": {"label": related, "transfer": transfer}}
    return make_config(f"{label}-{transfer}", model, label=label, **training)


def trained(config: TrainConfig, market: Market, folder: Path) -> Checkpoint:
    train_one(config, market.data, folder, seed=1, progress=False)
    return open_checkpoint(folder)


@pytest.mark.parametrize("model", [DIN, MTL, QSCORE], ids=["din", "mtl", "qscore"])
def test_metrics_are_of_the_label_and_say_so(market: Market, tmp_path: Path, model: dict[str, Any]) -> None:
    config = make_config("likes", model, label="like", epochs=6)
    if model == QSCORE:
        config = config.model_copy(update={"training": config.training.model_copy(update={"label": "like"})})
    found = trained(config, market, tmp_path / "run")
    assert prefix_of(config) == "like."
    measured = [key for key in found.metrics if key.rpartition(".")[2] == "auc"]
    assert sorted(measured) == ["like.test.auc", "like.valid.auc"]
    scored = score_split(evaluate.scorer(found), labelled(config, market.data), "test")
    likes = np.concatenate([batch.further["like"].numpy() for batch in batches(market.data, "test", 64)])
    assert np.array_equal(scored.labels, likes)
    assert found.metrics["like.test.auc"] == auc(likes, scored.scores)
    assert scored.truth is not None
    assert found.metrics["like.test.best_auc"] == auc(likes, scored.truth)
    assert likes.mean() < 0.5 * market.data.prepared.splits["test"].clicks / len(likes)
    assert likes.mean() / 2 < scored.scores.mean() < likes.mean() * 2


@pytest.mark.parametrize("transfer", ["none", "logit", "product"])
def test_a_related_run_is_resumed_at_its_step(market: Market, tmp_path: Path, transfer: str) -> None:
    """Bitwise the same weights as a run that was not interrupted."""
    config = asking("like", transfer, "click", **EVERYTHING)
    data = labelled(config, market.data)
    assert config.model.kind == "mtl"
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    train(config, config.model, data, tmp_path / "whole", 1, progress=False)
    stop = steps_of(market, config) + 3  # in the second epoch
    with at_step(stop, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        train(config, config.model, data, tmp_path / "cut", 1, progress=False)
    train(config, config.model, data, tmp_path / "cut", 1, progress=False)
    assert same(left_in(tmp_path / "cut"), left_in(tmp_path / "whole"))


def test_the_related_label_reaches_the_score_where_it_is_transferred(market: Market, tmp_path: Path) -> None:
    """Trained on clicks; the related label has no part in the labels that are measured."""
    for transfer in ("none", "product"):
        found = trained(asking("click", transfer, "like", epochs=1), market, tmp_path / transfer)
        assert {key for key in found.metrics if key.endswith(".auc")} == {"valid.auc", "test.auc"}
        assert found.metrics["test.auc"] > 0.55


def test_the_commands_read_the_checkpoints_label(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "like-product.yaml"
    path.write_text(yaml.safe_dump(asking("like", "product", "click").model_dump(mode="json")))
    place = ["--prepared", str(market.root)]
    common = [*place, "--threads", "1", "--json", str(tmp_path / "found.json")]
    data = ["--data", str(market.raw), "--out", str(tmp_path / "runs"), "--quiet"]
    assert main([str(path), *data, *common]) == 0
    assert "valid" in capsys.readouterr().out
    folder = tmp_path / "runs/like-product-seed1"
    metrics = open_checkpoint(folder).metrics
    assert json.loads((tmp_path / "found.json").read_text())["like.test.auc"] == metrics["like.test.auc"]

    assert evaluate.main([str(folder), "--by", "scene", *common]) == 0
    assert f"{metrics['like.test.auc']:.4f}" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["like.test.auc"] == pytest.approx(metrics["like.test.auc"], abs=1e-9)
    likes = sum(found[f"like.test.scene.{s}.impressions"] * found[f"like.test.scene.{s}.click_rate"]
                for s in ("feed", "search", "detail"))  # fmt: skip
    assert likes == pytest.approx(market.data.prepared.splits["test"].further["like"])

    assert calibrate.main([str(folder), "--method", "platt", *common]) == 0
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["like.valid.after.calibration"] == pytest.approx(1.0, abs=0.02)


def test_what_cannot_be_learnt_is_refused_before_training(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {
        "there is no label 'follow', known: click, like": asking("click", "none", "follow"),
        "there is no label 'share', known: click, like": make_config("share", DIN, label="share"),
    }
    for message, config in refused.items():
        with pytest.raises(DataError, match=message):
            train_one(config, market.data, tmp_path / "run", seed=1, progress=False)
        assert not (tmp_path / "run").exists()
    same_twice = asking("like", "none", "click").model_dump(mode="json")
    same_twice["model"]["related"]["label"] = "like"
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(same_twice))
    assert main([str(tmp_path / "bad.yaml"), "--data", str(market.raw), "--prepared", str(market.root)]) == 2
    assert "model.related.label is 'like', which training.label is too" in capsys.readouterr().err
    same_twice["model"]["related"] = {"label": "click", "transfer": "copy"}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(same_twice))
    assert main([str(tmp_path / "bad.yaml"), "--data", str(market.raw), "--prepared", str(market.root)]) == 2
    assert "related.transfer" in capsys.readouterr().err


def test_the_label_is_part_of_the_run(market: Market, tmp_path: Path) -> None:
    clicks, likes = (make_config("one", DIN, epochs=1, label=label) for label in ("click", "like"))
    train_one(clicks, market.data, tmp_path / "run", seed=1, progress=False)
    with pytest.raises(ConfigError, match="holds a run with another configuration"):
        train_one(likes, market.data, tmp_path / "run", seed=1, progress=False)
    assert find_prepared(market.root, market.data.prepared.fingerprint).label == "click"
