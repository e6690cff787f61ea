"""A search space is refused before anything is trained, by file, key and value."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import JsonValue

from models.config import ConfigError, TrainConfig, read_config
from models.search_space import SPACES, Choice, FloatRange, IntRange, find_space, read_space, value_of, with_values
from tests.market import DIN, QSCORE, make_config

CONFIG = make_config("some", DIN)


def space_file(folder: Path, **ranges: dict[str, Any]) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({"tune": {key.replace("__", "."): value for key, value in ranges.items()}}))
    return path


def test_every_kind_of_range_is_read(tmp_path: Path) -> None:
    path = space_file(
        tmp_path,
        training__learning_rate={"kind": "float", "low": 0.001, "high": 0.1, "log": True},
        training__batch_size={"kind": "int", "low": 128, "high": 1024, "step": 128},
        model__hidden={"kind": "choice", "values": [[8, 4], [16]]},
    )
    space = read_space(path, CONFIG)
    rate, size, hidden = (space.tune[key] for key in ("training.learning_rate", "training.batch_size", "model.hidden"))
    assert isinstance(rate, FloatRange)
    assert isinstance(size, IntRange)
    assert isinstance(hidden, Choice)
    assert [rate.holds(value) for value in (0.001, 0.05, 0.2, True, "0.05")] == [True, True, False, False, False]
    assert [size.holds(value) for value in (128, 256, 200, 2048, 256.0)] == [True, True, False, False, False]
    layers: list[JsonValue] = [[16], [8, 4], [4, 8]]
    assert [hidden.holds(value) for value in layers] == [True, True, False]


FLOAT = {"kind": "float", "low": 0.1, "high": 0.4}


@pytest.mark.parametrize(
    ("key", "where", "complaint"),
    [
        ("model__drpout", FLOAT, "tune.model.drpout: there is no key 'drpout', known: embedding"),
        ("model__kind", FLOAT, "tune.model.kind: only keys of `model` and `training`"),
        ("dataset", FLOAT, "tune.dataset: only keys of `model` and `training` can be searched, not 'dataset'"),
        ("training__pretraining__std", FLOAT, "tune.training.pretraining.std: the configuration has nothing there"),
        ("model__dropout", {**FLOAT, "high": 0.1}, "the range from 0.1 to 0.1 is empty"),
        ("model__dropout", {**FLOAT, "high": 1.5}, "tune.model.dropout: 1.5 is not allowed: model.din.dropout"),
        ("model__dropout", {**FLOAT, "low": 0.0, "log": True}, "low is 0, with log it has to be above 0"),
        ("model__dropout", {**FLOAT, "hihg": 1}, "tune.model.dropout.float.hihg: Extra inputs"),
        ("model__embedding", {"kind": "float", "low": 4, "high": 64}, "tune.model.embedding: 26.9"),
        ("model__embedding", {"kind": "int", "low": 9, "high": 8}, "the range from 9 to 8 is empty"),
        ("model__embedding", {"kind": "int", "low": 1, "high": 8, "step": 4}, "high 8 is no multiple of step 4"),
        ("model__embedding", {"kind": "int", "low": 1, "high": 9, "step": 4, "log": True}, "step is 4, with log"),
        ("model__embedding", {"kind": "int", "low": 0, "high": 8}, "tune.model.embedding: 0 is not allowed"),
        ("model__activation", {"kind": "choice", "values": []}, "tune.model.activation.choice.values"),
        ("model__activation", {"kind": "choice", "values": ["dice", "dice"]}, "the value 'dice' is there twice"),
        ("model__activation", {"kind": "choice", "values": ["dice", "gelu"]}, "'gelu' is not allowed"),
        ("model__activation", {"kind": "some"}, "tune.model.activation"),
    ],
)
def test_what_cannot_be_searched_is_named(tmp_path: Path, key: str, where: dict[str, Any], complaint: str) -> None:
    path = space_file(tmp_path, **{key: where})
    with pytest.raises(ConfigError) as caught:
        read_space(path, CONFIG)
    assert str(caught.value).startswith(f"{path}: ")
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "tune: {}", "trials: 3", "tune: {a: 1}"])
def test_a_file_that_is_no_space_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"space\.yaml: "):
        read_space(tmp_path / "space.yaml", CONFIG)


def test_the_space_of_the_name_goes_before_that_of_the_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.search_space.SPACES", tmp_path)
    with pytest.raises(ConfigError, match=r"some\.yaml and .*din\.yaml and .*embedded\.yaml; --space FILE"):
        find_space(CONFIG, None)
    (tmp_path / "embedded.yaml").touch()
    assert find_space(CONFIG, None) == tmp_path / "embedded.yaml"
    with pytest.raises(ConfigError, match=r"lr\.yaml; --space FILE"):
        find_space(make_config("some", {"kind": "lr"}), None)
    (tmp_path / "din.yaml").touch()
    assert find_space(CONFIG, None) == tmp_path / "din.yaml"
    (tmp_path / "some.yaml").touch()
    assert find_space(CONFIG, None) == tmp_path / "some.yaml"
    with pytest.raises(ConfigError, match=r"other\.yaml"):
        find_space(CONFIG, tmp_path / "other.yaml")


def test_a_real_number_has_three_digits_and_stays_within_its_range() -> None:
    rate = FloatRange(kind="float", low=0.0005, high=0.0123, log=True)
    assert [rate.rounded(value) for value in (0.00123456, 0.0005, 0.01229999, 0.0123)] == [
        0.00123,
        0.0005,
        0.0123,
        0.0123,
    ]
    assert [rate.holds(value) for value in (0.00123, 0.001234, 0.0123)] == [True, False, True]
    narrow = FloatRange(kind="float", low=1.0004, high=1.0006)
    assert narrow.rounded(1.0005) == 1.0004


def test_values_are_put_where_the_keys_say() -> None:
    changed = with_values(CONFIG, {"model.embedding": 5, "training.pretraining": {"history": "h", "field": "f"}})
    assert value_of(changed, "model.embedding") == 5
    assert value_of(changed, "training.pretraining.field") == "f"
    back = with_values(changed, {"model.embedding": 4, "training.pretraining": None})
    assert back == CONFIG


CONFIGS = [config for config in map(read_config, sorted(SPACES.parent.glob("*.yaml"))) if config.model.kind != "qscore"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_every_configuration_of_the_project_has_a_space_that_holds_it(config: TrainConfig) -> None:
    space = read_space(find_space(config, None), config)
    outside = {key for key, where in space.tune.items() if not where.holds(value_of(config, key))}
    assert not outside  # so that the first trial is the configuration as it is


def test_a_table_has_no_space() -> None:
    with pytest.raises(ConfigError, match="no search space"):
        find_space(make_config("any", QSCORE), None)
