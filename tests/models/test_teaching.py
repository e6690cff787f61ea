"""Learning from a trained network: the formula, and that the teacher stays as it was."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from export.assemble import Trained
from models.config import ConfigError
from models.data.batches import Batch, batches
from models.networks.config import MlrConfig, NetworkConfig, QscoreConfig
from models.networks.network import Network
from models.networks.registry import build
from models.teaching import Lesson, Taught, dealt
from models.training import train
from tests.market import DIN, Market, make_config


@pytest.fixture
def batch(market: Market) -> Batch:
    return next(batches(market.data, "train", 128, seed=1))


def pupil(market: Market, seed: int = 5) -> Network:
    torch.manual_seed(seed)
    return build(pupil_config().model_copy(update={"dropout": 0.0}), market.data.schema)


def test_the_loss_is_that_of_the_clicks_and_the_squared_distance(
    market: Market, trained: Trained, batch: Batch
) -> None:
    network, teacher = pupil(market).eval(), trained.finerank.network()
    logits, taught = network(batch), teacher(batch)
    probabilities = torch.sigmoid(logits)
    clicks = -torch.where(batch.labels == 1, probabilities.log(), (1 - probabilities).log()).mean()
    expected = clicks + 0.7 * ((logits - taught) ** 2).mean()
    assert torch.allclose(Taught(network, Lesson((teacher,), 0.7)).loss(batch), expected, atol=1e-6)


def test_several_teachers_speak_with_the_mean_of_their_logits(market: Market, trained: Trained, batch: Batch) -> None:
    network, teachers = pupil(market).eval(), (trained.finerank.network(), pupil(market, seed=9).eval())
    logits, (one, two) = network(batch), (teacher(batch) for teacher in teachers)
    expected = F.binary_cross_entropy_with_logits(logits, batch.labels) + 0.7 * ((logits - (one + two) / 2) ** 2).mean()
    assert torch.allclose(Taught(network, Lesson(teachers, 0.7)).loss(batch), expected, atol=1e-6)
    assert not torch.allclose(one, two, atol=1e-3)


def test_teachers_are_asked_about_candidates_at_others_requests(market: Market, trained: Trained, batch: Batch) -> None:
    network, teacher = pupil(market).eval(), trained.finerank.network()
    torch.manual_seed(3)
    asked = dealt(batch)
    assert torch.equal(asked.ads, batch.ads)
    assert torch.equal(asked.request.sort().values, batch.request.sort().values)
    pairs = [sorted(zip(each.request.tolist(), each.positions.tolist(), strict=True)) for each in (asked, batch)]
    assert pairs[0] == pairs[1]
    assert (asked.request != batch.request).float().mean() > 0.8
    clicks = F.binary_cross_entropy_with_logits(network(batch), batch.labels)
    expected = clicks + 0.7 * ((network(asked) - teacher(asked)) ** 2).mean()
    torch.manual_seed(3)
    assert torch.allclose(Taught(network, Lesson((teacher,), 0.7, dealt=True)).loss(batch), expected, atol=1e-6)


def test_the_teacher_is_neither_trained_nor_saved(market: Market, trained: Trained, tmp_path: Path) -> None:
    teacher = trained.finerank.network()
    before = copy.deepcopy(teacher.state_dict())
    config = make_config("pupil", DIN, epochs=1, evaluations=1)
    found = train(config, pupil_config(), market.data, tmp_path, 1, progress=False, lesson=Lesson((teacher,), 1.0))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    saved = torch.load(tmp_path / "best.pt", weights_only=True)
    assert saved.keys() == found.state_dict().keys()
    assert not [name for name, _ in Taught(found, Lesson((teacher,), 1.0)).named_parameters() if "teacher" in name]


def test_a_pupil_comes_closer_to_its_teacher_than_one_that_is_not_taught(
    market: Market, trained: Trained, tmp_path: Path
) -> None:
    teacher = trained.finerank.network()
    config = make_config("pupil", DIN | {"dropout": 0.0}, epochs=6, evaluations=1, monitor="logloss")
    distance = {}
    for name, lesson in (("taught", Lesson((teacher,), 1.0)), ("alone", None)):
        folder = tmp_path / name
        folder.mkdir()
        found = train(config, pupil_config(), market.data, folder, 7, progress=False, lesson=lesson)
        every = list(batches(market.data, "valid", 4096))
        with torch.no_grad():
            distance[name] = float(sum(F.mse_loss(found(each), teacher(each)) for each in every))
    assert distance["taught"] < 0.5 * distance["alone"]


def test_a_network_with_a_loss_of_its_own_is_not_taught(market: Market, trained: Trained) -> None:
    torch.manual_seed(1)
    network = build(MlrConfig(kind="mlr", pieces=2), market.data.schema)
    network.__class__ = type("Own", (type(network),), {"loss": lambda self, batch: self(batch).sum()})
    with pytest.raises(ConfigError, match="a Own has a loss of its own"):
        Taught(network, Lesson((trained.finerank.network(),), 1.0))


def pupil_config() -> NetworkConfig:
    model = make_config("pupil", DIN).model
    assert not isinstance(model, QscoreConfig)
    return model
