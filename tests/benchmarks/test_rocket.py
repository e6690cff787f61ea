"""The ablations of Rocket Launching: each changes one thing, and the figures are those of the runs."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from benchmarks import rocket
from benchmarks.leaderboard.runs import prepare_all, run_all
from benchmarks.rocket import VARIANTS, entries_of, gap, report
from models.config import ConfigError, TrainConfig
from models.data.batches import batches
from models.metrics import gauc
from models.rocket import read_booster
from tests.market import DIN, Market, make_config

BIG: dict[str, Any] = DIN | {"attention_hidden": [8, 4], "hidden": [16, 8]}


def pair(folder: Path, name: str = "marketplace-rocket") -> Path:
    """The file of a rocket over the tiny marketplace."""
    config = make_config(name, DIN, epochs=1).model_dump(mode="json")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config | {"rocket": {"booster": BIG}}))
    return path


def changed(config: TrainConfig, other: TrainConfig) -> set[str]:
    """Keys, of the rocket or of the whole, in which two configurations differ."""
    a, b = (each.model_dump(mode="json") for each in (config, other))
    if a["rocket"] is None or b["rocket"] is None:
        return {key for key in a if a[key] != b[key]}
    top = {key for key in a if key != "rocket" and a[key] != b[key]}
    return top | {f"rocket.{key}" for key in a["rocket"] if a["rocket"][key] != b["rocket"][key]}


@pytest.mark.parametrize("dataset", rocket.DATASETS)
def test_each_variant_changes_one_thing(dataset: str) -> None:
    entries = {each.model: each.config for each in entries_of(rocket.CONFIGS / f"{dataset}-rocket.yaml", [*VARIANTS])}
    whole = entries["rocket"]
    assert len({each.name for each in entries.values()}) == len(entries)
    assert {"light", "booster", "rocket"} < entries.keys()
    together = {
        "rocket": set(),
        "light": {"rocket"},
        "booster": {"rocket", "model"},
        "paper": {"rocket.hint", "rocket.block_arena", "rocket.centre"},
        "kd-1": {"rocket.method", "rocket.centre"},
        "kd-2": {"rocket.method", "rocket.centre", "rocket.temperature"},
    }
    for name, config in entries.items():
        differs = changed(whole, config) - {"name"}
        if name in together:
            assert differs <= together[name], name
        else:
            assert len(differs) == 1, name
        if name != "rocket":
            assert differs, f"{name} is the rocket as it is"
    assert whole.rocket is not None
    assert entries["booster"].model == whole.rocket.booster
    assert [name for name in VARIANTS if name not in entries] == [f"hint-{whole.rocket.hint:g}"]


def test_figures_are_those_of_the_runs(market: Market, tmp_path: Path) -> None:
    entries = entries_of(pair(tmp_path), ["light", "booster", "rocket", "hint-0.03"])
    data = prepare_all(entries, market.raw, market.root, progress=False)
    runs = run_all(entries, data, [1, 2], tmp_path / "out", lambda _: None, progress=False)
    found = report("marketplace", runs, replicates=30)
    start = "rocket.marketplace"
    means = {}
    for name, own in runs.items():
        values = [gauc(each.scored.labels, each.scored.scores, each.scored.users).value for each in own]
        means[name] = float(np.mean(values))
        assert found.figures[f"{start}.{name}.gauc"] == pytest.approx(means[name], abs=1e-9)
        assert found.figures[f"{start}.{name}.gauc_std"] == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    for name in ("rocket", "hint-0.03"):
        for alone in rocket.ALONE:
            key = f"{start}.{name}.dgauc.{alone}"
            assert found.figures[key] == pytest.approx(means[name] - means[alone], abs=1e-9)
            assert found.figures[f"{key}_low"] < found.figures[f"{key}_high"]
    costs = {name: runs[name][0].checkpoint.metrics["model.multiply_adds"] for name in runs}
    assert found.figures[f"{start}.rocket.fewer"] == pytest.approx(costs["booster"] / costs["rocket"])
    assert costs["rocket"] == costs["light"] < costs["booster"]
    assert f"{start}.light.dgauc.light" not in found.figures
    assert f"{start}.light.gap" not in found.figures
    (table,) = found.tables
    assert [row[0] for row in table.rows] == [VARIANTS[name][0] for name in runs]
    assert [len(row) for row in table.rows] == [len(table.columns)] * 4


def test_the_gap_is_that_of_logits_on_validation(market: Market, tmp_path: Path) -> None:
    entries = entries_of(pair(tmp_path), ["rocket"])
    data = prepare_all(entries, market.raw, market.root, progress=False)
    (run,) = run_all(entries, data, [1], tmp_path / "out", lambda _: None, progress=False)["rocket"]
    settings = run.checkpoint.config.rocket
    assert settings is not None
    light = run.checkpoint.network()
    booster = read_booster(run.checkpoint.folder, settings, run.checkpoint.schema)
    with torch.no_grad():
        far = torch.cat([light(batch) - booster(batch) for batch in batches(market.data, "valid", 100)])
    assert gap(run) == pytest.approx(far.square().mean().item(), rel=1e-4)


def test_all_variants_have_another_training_where_one_is_asked_for(tmp_path: Path) -> None:
    names = ["light", "booster", "rocket", "no-hint"]
    usual = {each.model: each.config for each in entries_of(pair(tmp_path), names)}
    others = {each.model: each.config for each in entries_of(pair(tmp_path), names, epochs=3, batch_size=32)}
    for name in names:
        assert changed(usual[name], others[name]) == {"name", "training"}
        trainings = [each[name].training.model_dump() for each in (usual, others)]
        differs = {key for key in trainings[0] if trainings[0][key] != trainings[1][key]}
        assert differs == {"epochs", "batch_size"}
        assert (others[name].training.epochs, others[name].training.batch_size) == (3, 32)
    assert len({each.name for each in (*usual.values(), *others.values())}) == 8, "no run is taken for another"


def test_what_is_no_rocket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "din.yaml"
    path.write_text(yaml.safe_dump(make_config("din", DIN).model_dump(mode="json")))
    with pytest.raises(ConfigError, match=r"din\.yaml: there is no rocket in it"):
        entries_of(path, ["light"])


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    arguments = argparse.Namespace(
        quick=False, dataset="kuairand", data=tmp_path / "nowhere", prepared=tmp_path, out=tmp_path, seeds=[1],
        variants=["rocket"], epochs=None, batch_size=None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="nowhere"):
        rocket.run(arguments)
