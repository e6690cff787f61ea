"""Which configurations take part, and what is wrong with those that cannot."""

from pathlib import Path

import pytest
import yaml

from benchmarks.leaderboard.entries import CONFIGS, find_entries
from benchmarks.leaderboard.runs import trainable
from models.config import ConfigError
from models.marketplace.files import write_marketplace
from models.marketplace.spec import MarketplaceSpec
from tests.market import DIN, make_config


def config(folder: Path, name: str, file: str | None = None) -> Path:
    path = folder / f"{file or name}.yaml"
    path.write_text(yaml.safe_dump(make_config(name, DIN).model_dump(mode="json")))
    return path


@pytest.mark.parametrize("dataset", ["kuairand", "marketplace"])
def test_the_projects_own_configurations_take_part(dataset: str) -> None:
    found = {entry.model for entry in find_entries(dataset, None, "din")}
    assert found == {path.stem.removeprefix(f"{dataset}-") for path in CONFIGS.glob(f"{dataset}-*.yaml")}
    assert found >= {"din", "dqm", "qscore"}


def test_patterns_choose_and_a_file_takes_part_once(tmp_path: Path) -> None:
    for name in ("some-din", "some-gwen", "some-lr"):
        config(tmp_path, name)
    found = find_entries("some", [str(tmp_path / "some-[dg]*.yaml"), str(tmp_path / "some-din.yaml")], "din")
    assert [entry.model for entry in found] == ["din", "gwen"]


def test_a_pattern_without_a_match_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\*\.yaml: there is no such configuration"):
        find_entries("some", [str(tmp_path / "nothing*.yaml")], "din")


def test_names_must_tell_models_of_the_data_set_apart(tmp_path: Path) -> None:
    config(tmp_path, "some-din")
    everything = [str(tmp_path / "*.yaml")]
    with pytest.raises(ConfigError, match="the reference 'gwen' is not among the models: din"):
        find_entries("some", everything, "gwen")
    again = config(tmp_path, "some-din", "z")
    with pytest.raises(ConfigError, match=f"{again}: the name 'some-din' is also that of .*some-din.yaml"):
        find_entries("some", everything, "din")
    again.unlink()
    other = config(tmp_path, "other-din")
    with pytest.raises(ConfigError, match=f"{other}: the name 'other-din' does not begin with some-"):
        find_entries("some", everything, "din")


def test_a_dicm_is_left_out_where_there_are_no_images(tmp_path: Path) -> None:
    sizes = {"ads": 100, "users": 20, "impressions": 200, "brands": 20}
    for images in (0, 4):
        write_marketplace(MarketplaceSpec(images=images, **sizes), tmp_path / f"images-{images}", lambda _: None)
    entries = find_entries("marketplace", None, "din")
    said: list[str] = []
    kept = trainable(entries, tmp_path / "images-0", "din", said.append)
    assert [entry.model for entry in kept] == [entry.model for entry in entries if entry.model != "dicm"]
    assert said == [f"marketplace-dicm is left out: it reads images, {tmp_path / 'images-0'} has none"]
    assert trainable(entries, tmp_path / "images-4", "dicm", said.append) == entries
    with pytest.raises(ConfigError, match="the reference 'dicm' reads images"):
        trainable(entries, tmp_path / "images-0", "dicm", said.append)


def test_kuairand_has_no_images() -> None:
    assert "dicm" not in {entry.model for entry in find_entries("kuairand", None, "din")}
