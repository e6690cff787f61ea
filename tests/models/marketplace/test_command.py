import json
from pathlib import Path

import numpy as np
import pytest

from models.marketplace.command import main
from models.marketplace.spec import MarketplaceSpec

SMALL = ["--ads", "300", "--users", "200", "--impressions", "4000", "--categories", "4", "--brands", "15"]


def test_writes_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures_file = tmp_path / "figures.json"
    assert main(["--out", str(tmp_path / "data"), *SMALL, "--seed", "7", "--json", str(figures_file)]) == 0
    printed = capsys.readouterr().out
    assert "300 ads, 200 users, seed 7" in printed
    assert "best possible AUC" in printed
    figures = json.loads(figures_file.read_text())
    assert figures["marketplace.impressions"] == 4000
    assert figures["marketplace.ctr"] == figures["marketplace.clicks"] / 4000
    assert 0.6 < figures["marketplace.best_auc.test"] < 0.95
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
        "ads.parquet",
        "dataset.yaml",
        "log",
        "marketplace.json",
        "users.parquet",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ads", "5"], "--ads: Input should be greater than or equal to 100 (got 5)"),
        (["--users", "99000000"], "--users: Input should be less than or equal to 10000000 (got 99000000)"),
        (["--history-length", "0"], "--history-length: Input should be greater than or equal to 1 (got 0)"),
        (["--targeted", "0.9"], "--targeted: Input should be less than or equal to 0.5 (got 0.9)"),
        (["--launched", "0.6"], "--launched: Input should be less than or equal to 0.5 (got 0.6)"),
        (["--images", "5000"], "--images: Input should be less than or equal to 4096 (got 5000)"),
        (["--style", "1"], "effects.style is 1.0, but there are no images that would show it"),
        (["--appeal", "-1"], "--appeal: Input should be greater than or equal to 0 (got -1"),
        (["--brands", "10"], "categories <= brands <= ads must hold, they are 20, 10, 10000"),
    ],
)
def test_bad_sizes_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["--out", str(tmp_path / "data"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_an_existing_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), *SMALL]) == 2
    assert f"{tmp_path} exists" in capsys.readouterr().err


def test_a_log_without_a_click_in_its_test_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures_file = tmp_path / "figures.json"
    options = ["--impressions", "100", "--users", "10", "--candidates", "50", "--json", str(figures_file)]
    assert main(["--out", str(tmp_path / "data"), *options]) == 0
    assert "on the test part: it has no click" in capsys.readouterr().out
    assert "marketplace.best_auc.test" not in json.loads(figures_file.read_text())


def test_figures_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "data"), *SMALL, "--json", str(tmp_path / "no" / "figures.json")]) == 2
    assert "the data is written, the figures are not" in capsys.readouterr().err
    assert (tmp_path / "data" / "dataset.yaml").exists()


def test_help_says_that_it_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "simulated" in capsys.readouterr().out


def test_images_and_launches(tmp_path: Path) -> None:
    options = ["--images", "8", "--launched", "0.4", "--appeal", "0.5", "--style", "2"]
    assert main(["--out", str(tmp_path / "data"), *SMALL, *options]) == 0
    spec = MarketplaceSpec.model_validate_json((tmp_path / "data/marketplace.json").read_text())
    assert (spec.images, spec.launched) == (8, 0.4)
    assert (spec.effects.appeal, spec.effects.style, spec.effects.brand) == (0.5, 2.0, 0.25)
    assert np.load(tmp_path / "data/images/vectors.npy").shape == (300, 8)
    assert len(set(np.load(tmp_path / "data/images/ids.npy").tolist())) == 300
