"""A checkpoint is opened as it was written, or refused with the file that is wrong."""

import json
import math
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from export.assemble import Trained
from models.checkpoint import begin, open_checkpoint, save_state, write_json
from models.config import ConfigError
from models.data.batches import batches
from models.evaluation import evaluate, network_scorer
from tests.market import DIN, Market, make_config


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A copy of DIN's checkpoint, to be damaged."""
    return Path(shutil.copytree(trained.finerank.folder, tmp_path / "din"))


def test_what_was_written_is_read(market: Market, trained: Trained) -> None:
    opened = open_checkpoint(trained.finerank.folder)
    assert opened.config == make_config("tiny-din", DIN)
    assert opened.schema == market.data.schema
    assert (opened.seed, opened.data_fingerprint) == (1, market.data.prepared.fingerprint)
    assert opened.metrics["test.impressions"] == market.data.prepared.splits["test"].impressions


def test_the_network_is_the_one_that_was_measured(market: Market, trained: Trained) -> None:
    network = trained.finerank.network()
    assert not network.training
    found = evaluate(network_scorer(network), market.data, "test")
    assert {f"test.{name}": value for name, value in found.items()}.items() <= trained.finerank.metrics.items()
    batch = next(batches(market.data, "test", 50))
    with torch.no_grad():
        assert torch.equal(network(batch), open_checkpoint(trained.finerank.folder).network()(batch))


def test_files_hold_no_code(trained: Trained) -> None:
    for checkpoint in (trained.finerank, trained.prerank):
        for name in ("best.pt", "last.pt"):
            assert zipfile.is_zipfile(checkpoint.folder / name)
            assert torch.load(checkpoint.folder / name, weights_only=True)
    with np.load(trained.qscore.folder / "qscore.npz", allow_pickle=False) as stored:
        assert sorted(stored) == ["mean", "scores", "strength"]


def test_a_table_is_no_network_and_the_other_way_round(market: Market, trained: Trained) -> None:
    with pytest.raises(ConfigError, match="a Qscore is a table, it has no network"):
        trained.qscore.network()
    with pytest.raises(ConfigError, match="model 'din' is not a Qscore"):
        trained.finerank.qscore()
    assert len(trained.qscore.qscore().scores) == len(market.data.ads.fields)


def test_other_data_are_refused(market: Market, trained: Trained) -> None:
    trained.finerank.require_same_data(market.data)
    other = replace(market.data, prepared=market.data.prepared.model_copy(update={"fingerprint": "f" * 64}))
    with pytest.raises(ConfigError) as caught:
        trained.finerank.require_same_data(other)
    message = str(caught.value)
    assert str(trained.finerank.folder) in message
    assert market.data.prepared.fingerprint[:12] in message
    assert "f" * 12 in message


@pytest.mark.parametrize("name", ["config.json", "schema.json", "metrics.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ConfigError) as caught:
        open_checkpoint(folder)
    assert str(caught.value).startswith(f"{folder / name}: cannot be read: No such file")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("config.json", "{", "config.json: not of a checkpoint"),
        ("config.json", "{}", "'config'"),
        ("metrics.json", "metrics", "metrics.json: not of a checkpoint"),
        ("schema.json", "{}", "user_key: Field required"),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, name: str, content: str, problem: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(ConfigError) as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_with_an_unknown_key_is_refused(folder: Path) -> None:
    head = json.loads((folder / "config.json").read_text())
    head["config"]["training"]["warmup"] = 5
    write_json(folder / "config.json", head)
    with pytest.raises(ConfigError, match=r"training\.warmup: .*\(got 5\)"):
        open_checkpoint(folder)


@pytest.mark.parametrize("damage", ["missing", "cut", "rubbish", "other shape"])
def test_weights_that_do_not_fit_are_refused(folder: Path, trained: Trained, damage: str) -> None:
    path = folder / "best.pt"
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "rubbish":
        path.write_bytes(b"no weights at all")
    else:
        shutil.copyfile(trained.prerank.folder / "best.pt", path)
    with pytest.raises(ConfigError) as caught:
        open_checkpoint(folder).network()
    assert str(caught.value).startswith(f"{path}: not the weights of 'tiny-din': ")
    assert "\n" not in str(caught.value)


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_state(path, {"step": torch.tensor(1)})
    with pytest.raises(Exception, match="pickle"):
        save_state(path, {"step": torch.tensor(2), "broken": lambda: None})
    assert torch.load(path, weights_only=True)["step"] == 1


def test_begin_writes_what_open_needs_but_the_metrics(market: Market, tmp_path: Path) -> None:
    config = make_config("begun", DIN)
    begin(tmp_path / "deep/begun", config, market.data, seed=4)
    with pytest.raises(ConfigError, match=r"metrics\.json: cannot be read"):
        open_checkpoint(tmp_path / "deep/begun")
    write_json(tmp_path / "deep/begun/metrics.json", {"valid.auc": 0.5})
    opened = open_checkpoint(tmp_path / "deep/begun")
    assert (opened.config, opened.seed, opened.metrics) == (config, 4, {"valid.auc": 0.5})


def test_figures_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"auc": 0.5, "gauc": math.nan, "worst": math.inf, "seeds": 3})
    assert json.loads((tmp_path / "m.json").read_text()) == {"auc": 0.5, "seeds": 3}
