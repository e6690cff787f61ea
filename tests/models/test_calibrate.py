"""`adrank calibrate`: fitted on validation, kept in the checkpoint, carried by the bundle."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bundle.folder import open_bundle
from export.assemble import FunnelSettings, Trained, assemble
from models.calibrate import main
from models.calibration import fit_platt
from models.checkpoint import Checkpoint, open_checkpoint
from models.config import ConfigError
from models.evaluate import scorer
from models.evaluation import score_split
from tests.market import Market


@pytest.fixture
def din(trained: Trained, tmp_path: Path) -> Checkpoint:
    """A copy of its own."""
    shutil.copytree(trained.finerank.folder, tmp_path / "din")
    return open_checkpoint(tmp_path / "din")


def command(market: Market, checkpoint: Checkpoint, *more: str) -> int:
    return main([str(checkpoint.folder), "--prepared", str(market.root), "--threads", "1", *more])


def test_it_is_fitted_on_validation_and_shown_on_both(
    market: Market, din: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert din.calibration() is None
    picture, figures = tmp_path / "r.svg", tmp_path / "m.json"
    assert command(market, din, "--method", "platt", "--json", str(figures), "--picture", str(picture)) == 0
    valid = score_split(scorer(din), market.data, "valid")
    assert din.calibration() == fit_platt(valid.labels, valid.scores)
    found = json.loads(figures.read_text())
    for split in ("valid", "test"):
        assert found[f"{split}.before.auc"] == pytest.approx(din.metrics[f"{split}.auc"])
        for metric in ("auc", "gauc"):
            assert found[f"{split}.after.{metric}"] == pytest.approx(found[f"{split}.before.{metric}"], abs=1e-9)
    assert found["valid.after.logloss"] <= found["valid.before.logloss"]
    assert abs(found["valid.after.calibration"] - 1) < 0.02
    assert f"{found['test.after.ece']:.4f}" in capsys.readouterr().out
    assert "<!-- after platt -->" in picture.read_text()


def test_isotonic_and_none(market: Market, din: Checkpoint) -> None:
    assert command(market, din, "--method", "isotonic") == 0
    found = din.calibration()
    assert found is not None
    assert found.method == "isotonic"
    assert command(market, din, "--method", "none") == 0
    assert din.calibration() is None


def test_down_sampling_needs_its_share(market: Market, din: Checkpoint, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(market, din, "--method", "downsampling") == 2
    assert command(market, din, "--method", "platt", "--kept", "0.1") == 2
    assert capsys.readouterr().err.count("--kept SHARE belongs to --method downsampling, and only there") == 2
    assert command(market, din, "--method", "downsampling", "--kept", "1.2") == 2
    assert "1.2, it must be above 0 and at most 1" in capsys.readouterr().err
    assert din.calibration() is None
    assert command(market, din, "--method", "downsampling", "--kept", "0.1") == 0
    found = din.calibration()
    assert found is not None
    assert found.calibrated[0] == pytest.approx(np.log(0.1))


def test_a_table_is_not_calibrated(market: Market, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(market, trained.qscore) == 2
    assert "only networks are calibrated" in capsys.readouterr().err


def test_a_file_that_is_none_is_named(din: Checkpoint) -> None:
    din.calibration_file.write_text('{"method": "platt"}')
    with pytest.raises(ConfigError, match=r"calibration\.json: logits"):
        din.calibration()


def test_the_bundle_carries_it(market: Market, trained: Trained, din: Checkpoint, tmp_path: Path) -> None:
    assert command(market, din) == 0
    folder, _ = assemble(replace(trained, finerank=din), tmp_path / "bundles", "some", FunnelSettings(), users=0)
    stages = open_bundle(folder).manifest.stages
    assert stages.finerank.calibration == din.calibration() is not None
    assert stages.prerank.calibration is None
