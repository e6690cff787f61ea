"""Every shipped configuration can be read; what is wrong in one is named with file, key and value."""

from pathlib import Path

import pytest

from models import config as config_module
from models.config import ConfigError, read_config, read_dataset
from models.labels import labelled
from models.networks.config import DinConfig
from tests.market import Market

FOLDER = Path(config_module.__file__).parent / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
KINDS = ("din", "dqm", "qscore")

ABLATIONS: dict[str, dict[str, object]] = {
    "softmax": {"attention": "softmax"},
    "prelu": {"activation": "prelu", "attention_activation": "prelu"},
    "sigmoid": {"activation": "sigmoid", "attention_activation": "sigmoid"},
    "l2": {"embedding_l2": 0.01},
    "no-pretraining": {"pretraining": None},
    "no-averaging": {"averaging": 0.0},
    "no-tab": {"dropped_fields": ("context.tab",)},
}
"""What each is called after -> the only keys that it changes."""
DATA_OF = {"live": "data/kuairand-live.yaml"}

GOOD = """
name: some-din
dataset: dataset.yaml
model: {kind: din, hidden: [8]}
training: {epochs: 3}
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configurations_are_whole(path: Path, market: Market) -> None:
    config = read_config(path)
    assert config.name == path.stem, "checkpoint folders are named after it"
    dataset, _, rest = path.stem.partition("-")
    if rest == "rocket":  # named after how it is trained
        assert config.rocket is not None
        assert config.model.kind == "din"
    else:
        assert f"{rest}-".startswith(f"{config.model.kind}-")
    spec = read_dataset(path, config, market.raw)
    assert spec.name.startswith(dataset)
    assert spec.ad_features


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[ls]*/*.yaml")), ids=lambda path: path.stem)
def test_configurations_of_labels_and_scenes_are_whole(path: Path, market: Market) -> None:
    """They are compared with others of their data set, so they bear its name."""
    config = read_config(path)
    assert config.name == path.stem
    spec = read_dataset(path, config, market.raw)
    assert spec.name == path.stem.partition("-")[0]
    if path.parent.name == "labels":
        assert labelled(config, market.data).label == config.training.label
    else:
        assert config.model.kind == "mtl"
        assert config.model.scene in [each.column for each in spec.context_features]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("ablations/*.yaml")), ids=lambda path: path.stem)
def test_an_ablation_differs_in_what_it_is_called_after(path: Path) -> None:
    dataset, kind, *rest = path.stem.split("-")
    choice, base = "-".join(rest), read_config(FOLDER / f"{dataset}-{kind}.yaml")
    config = read_config(path)
    assert config.name == path.stem
    assert (path.parent / config.dataset).resolve() == (FOLDER / (DATA_OF.get(choice) or base.dataset)).resolve()
    ours, theirs = ({**each.model.model_dump(), **each.training.model_dump()} for each in (config, base))
    assert {key: value for key, value in ours.items() if value != theirs[key]} == {
        key: value for key, value in ABLATIONS.get(choice, {}).items() if key in theirs
    }


def test_there_is_one_of_each_stage_for_both_datasets() -> None:
    assert {f"{d}-{k}" for d in ("kuairand", "marketplace") for k in KINDS} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{epochs: 3}", "{pretraining: {std: 0.1}}", "either history and field are needed, or fm_epochs above 0"),
        (
            "{epochs: 3}",
            "{pretraining: {field: ad_id, fm_epochs: 1}}",
            "history and field go together, they are None and 'ad_id'",
        ),
    ],
)
def test_pretraining_says_from_what(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_config(write(tmp_path, GOOD.replace(old, new)))


def write(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


def test_defaults_fill_what_is_not_given(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, GOOD))
    assert isinstance(config.model, DinConfig)
    assert (config.model.hidden, config.model.attention, config.training.epochs) == ((8,), "sum", 3)


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("epochs: 3", "epoch: 3", "training.epoch", "3"),
        ("epochs: 3", "epochs: 0", "training.epochs", "0"),
        ("epochs: 3", "learning_rate: fast", "training.learning_rate", "'fast'"),
        ("epochs: 3", "schedule: linear", "training.schedule", "'linear'"),
        ("epochs: 3", "averaging: 1", "training.averaging", "1"),
        ("hidden: [8]", "hidden: [8, wide]", "model.din.hidden.1", "'wide'"),
        ("hidden: [8]", "hidden: []", "model.din.hidden", "[]"),
        ("hidden: [8]", "dimension: 4", "model.din.dimension", "4"),
        ("kind: din", "kind: dien", "model", "'dien'"),
        ("name: some-din", "name: Some DIN", "name", "'Some DIN'"),
        ("name: some-din", "name: ../din", "name", "'../din'"),
        ("dataset: dataset.yaml", "seed: 3", "seed", "3"),
        ("dataset: dataset.yaml", "", "dataset", "some-din"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, key: str, value: str) -> None:
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert f"{key}: " in message
    assert value in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "problem"), [("- a list", "holds list, not a mapping"), ("", "holds NoneType"), ("a: [", "cannot be read")]
)
def test_files_that_hold_no_configuration(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_config(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_the_dataset_stands_beside_the_configuration_or_with_the_data(tmp_path: Path, market: Market) -> None:
    path = write(tmp_path, GOOD)
    config = read_config(path)
    assert read_dataset(path, config, market.raw).label == "click"
    with pytest.raises(ConfigError) as caught:
        read_dataset(path, config, tmp_path / "data")
    assert f"{tmp_path / 'dataset.yaml'} nor {tmp_path / 'data/dataset.yaml'}" in str(caught.value)
    beside = (market.raw / "dataset.yaml").read_text().replace("name: marketplace", "name: beside")
    (tmp_path / "dataset.yaml").write_text(beside)
    assert read_dataset(path, config, market.raw).name == "beside"
