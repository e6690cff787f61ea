"""`adrank demo`: from nothing to a bundle, and what a second run of it does."""

from pathlib import Path

import pytest

from bundle.folder import open_bundle
from export import demo as demo_module
from export.demo import main
from models.config import read_config
from models.networks.config import DinConfig
from tests.market import Demo

SIZES = ["--ads", "300", "--users", "200", "--impressions", "6000", "--seed", "3", "--threads", "1"]


def test_the_bundle_opens_and_carries_everything(demo: Demo) -> None:
    opened = open_bundle(demo.bundle)
    assert opened.id == "small"
    assert opened.manifest.catalogue.ads == 300
    assert opened.manifest.users == 200
    assert set(opened.manifest.quality) == {"qscore", "dqm", "din"}
    stages = opened.manifest.stages
    kept = [stage.keep for stage in (stages.retrieval, stages.qscore, stages.prerank, stages.finerank)]
    assert kept == sorted(kept, reverse=True), "a funnel narrows"
    assert opened.manifest.made.seed == 3


def test_the_projects_configurations_are_used(demo: Demo) -> None:
    trained = {"rocket": demo.trained.finerank, "dqm": demo.trained.prerank, "qscore": demo.trained.qscore}
    assert set(trained) == set(demo_module.MODELS)
    for name, checkpoint in trained.items():
        assert checkpoint.config == read_config(demo_module.CONFIGS / f"marketplace-{name}.yaml")
        assert checkpoint.seed == 3


def test_the_light_net_of_a_rocket_is_served(demo: Demo) -> None:
    """DIN with an activation unit of 16-8 or less; the graph has the weights of the light net and no others."""
    config = demo.trained.finerank.config
    assert config.rocket is not None
    assert isinstance(config.model, DinConfig)
    assert config.model.attention_hidden <= (16, 8)
    stage = open_bundle(demo.bundle).manifest.stages.finerank
    assert stage.model == "din"
    light, booster = (demo.trained.finerank.metrics[f"{name}.parameters"] for name in ("model", "booster"))
    assert booster > light
    stored = (demo.bundle / stage.graph.file).stat().st_size
    assert stored < 4 * light + 100_000, "float32 weights of the light net, and the graph"


def test_a_bundle_that_exists_is_refused(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(demo.out), "--id", "small", *SIZES]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (f"adrank demo: {demo.bundle} exists, and bundles are never changed: remove it, or use --id")


def test_a_second_bundle_takes_up_what_is_there(demo: Demo, capsys: pytest.CaptureFixture[str]) -> None:
    written = {path: path.stat().st_mtime_ns for path in (demo.out / "checkpoints").rglob("best.pt")}
    assert main(["--out", str(demo.out), "--id", "again", *SIZES]) == 0
    assert {path: path.stat().st_mtime_ns for path in (demo.out / "checkpoints").rglob("best.pt")} == written
    printed = capsys.readouterr().out
    assert f"`adrank serve --bundle {demo.out / 'bundles/again'}` serves it" in printed
    one, two = open_bundle(demo.bundle).manifest, open_bundle(demo.out / "bundles/again").manifest
    assert one.files["ads/vectors.npy"] == two.files["ads/vectors.npy"]


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [
        ("--ads", "5", "ads"),
        ("--users", "1", "users"),
        ("--impressions", "-1", "impressions"),
        ("--id", "a b", "bundle_id"),
    ],
)
def test_sizes_that_make_no_sense_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, key: str
) -> None:
    assert main(["--out", str(tmp_path / "out"), option, value, "--threads", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"adrank demo: {key}: ")
    assert f"(got {value!r})" in line or f"(got {value})" in line
    assert not (tmp_path / "out").exists()
