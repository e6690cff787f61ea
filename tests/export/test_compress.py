"""`adrank compress` from the outside."""

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bundle.command import main as show
from bundle.encoding import Float32
from bundle.manifest import read_manifest
from export.assemble import FunnelSettings, Trained, assemble
from export.certify import REQUESTS, in_turns, rows_of
from export.compress import main
from export.parity import Feeds, Run
from models.checkpoint import open_checkpoint
from models.config import ConfigError
from models.evaluation import network_scorer, score_split
from models.train import train_one
from tests.market import DIN, Market, make_config

RECIPE = "name: tuned\nsteps:\n  - {step: fine_tune, epochs: 1, learning_rate: 0.003}\n"


def options(trained: Trained, market: Market, recipe: Path) -> list[str]:
    places = ["--recipe", str(recipe), "--prepared", str(market.root), "--threads", "1", "--quiet"]
    return [str(trained.finerank.folder), *places]


def test_a_recipe_makes_a_checkpoint_and_says_what_it_did(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    wanted = ["--out", str(tmp_path / "out"), "--json", str(tmp_path / "found.json")]
    assert main([*options(trained, market, recipe), *wanted]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(tmp_path / "out")
    assert [line.split()[1] for line in printed[-3:]] == ["auc", "gauc", "logloss"]
    figures = json.loads((tmp_path / "found.json").read_text())
    assert figures["dauc_low"] <= figures["dauc"] <= figures["dauc_high"]
    assert figures["bytes_ratio"] == figures["macs_ratio"] == 1
    opened = open_checkpoint(tmp_path / "out")
    certificate = opened.certificate()
    assert certificate is not None
    assert (certificate.recipe, certificate.steps) == ("tuned", ("fine_tune",))
    assert certificate.before.quality["auc"] == trained.finerank.metrics["test.auc"]
    assert certificate.after.quality["auc"] == opened.metrics["test.auc"]
    assert certificate.differences["auc"].value == pytest.approx(figures["dauc"])


def test_the_certificate_names_the_teachers(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: taught\nsteps:\n  - {step: fine_tune, teacher: 10, evaluations: 1}\n")
    asked = [*options(trained, market, recipe), "--out", str(tmp_path / "out"), "--teacher"]
    name = trained.finerank.folder.name
    assert main([*asked, str(trained.finerank.folder)]) == 0
    assert f"  taught by {name} (seed 1)" in capsys.readouterr().out.splitlines()
    certificate = open_checkpoint(tmp_path / "out").certificate()
    assert certificate is not None
    assert [(each.name, each.weights) for each in certificate.teachers] == [(name, certificate.original_weights)]
    assert main([*asked, str(tmp_path / "absent")]) == 2
    assert f"adrank compress: {tmp_path}/absent/config.json: cannot be read" in capsys.readouterr().err


def test_a_bundle_carries_the_certificate_of_its_own_weights_only(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    assert main([*options(trained, market, recipe), "--out", str(tmp_path / "out")]) == 0
    small = replace(trained, finerank=open_checkpoint(tmp_path / "out"))
    folder, _ = assemble(small, tmp_path / "bundles", "small", FunnelSettings(interests=0), users=5)
    manifest = read_manifest(folder)
    assert manifest.stages.finerank.certificate == small.finerank.certificate()
    assert show(["show", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert f"certificate: {trained.finerank.folder.name} (seed 1) by tuned: fine_tune" in printed

    copied = shutil.copytree(tmp_path / "out", tmp_path / "other")
    shutil.copy(trained.finerank.folder / "best.pt", copied)
    with pytest.raises(ConfigError, match=r"certificate\.json is of weights [0-9a-f]{12}, best\.pt is"):
        assemble(replace(trained, finerank=open_checkpoint(copied)), tmp_path / "bundles", "b", FunnelSettings())


def test_a_certificate_is_of_the_split_that_was_scored(market: Market, trained: Trained) -> None:
    scored = score_split(network_scorer(trained.finerank.network()), market.data, "test")
    assert rows_of(scored) == rows_of(dataclasses.replace(scored, scores=scored.scores * 0))
    assert rows_of(scored) != rows_of(dataclasses.replace(scored, labels=1 - scored.labels))


def test_graphs_take_turns() -> None:
    order: list[int] = []

    def graph(number: int) -> Run:
        def run(feeds: Feeds) -> list[Float32]:
            order.append(number)
            return []

        return run

    runs = [graph(0), graph(1)]
    times = in_turns(runs, [{}])
    assert [len(each) for each in times] == [REQUESTS, REQUESTS]
    assert order[:4] in ([0, 1, 1, 0], [1, 0, 0, 1])


def test_bad_input_is_one_line(
    market: Market, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE)
    absent = tmp_path / "absent"
    for arguments, said in (
        ([str(absent), *options(trained, market, recipe)[1:]], f"{absent}/config.json: cannot be read"),
        (options(trained, market, absent), f"{absent}: cannot be read"),
        ([*options(trained, market, recipe), "--out", str(trained.finerank.folder)], "the checkpoint that is to be"),
    ):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("adrank compress: ")
        assert said in line


def test_a_network_of_another_label_is_compressed_on_that_label(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config("tiny-like", DIN, epochs=1, evaluations=1, label="like")
    train_one(config, market.data, tmp_path / "like", seed=1, progress=False)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: int8\nsteps:\n  - {step: values, tables: int8}\n")
    places = ["--recipe", str(recipe), "--prepared", str(market.root), "--threads", "1", "--quiet"]
    assert main([str(tmp_path / "like"), *places, "--out", str(tmp_path / "out")]) == 0
    before, after = (open_checkpoint(tmp_path / name) for name in ("like", "out"))
    certificate = after.certificate()
    assert certificate is not None
    assert certificate.before.quality["auc"] == before.metrics["like.test.auc"]
    assert certificate.after.quality["auc"] == after.metrics["like.test.auc"]
    assert "test.auc" not in after.metrics
