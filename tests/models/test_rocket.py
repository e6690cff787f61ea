"""Rocket Launching: its loss by hand, what the hint's gradient reaches, and what a checkpoint of it is."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from export.din_graph import DinServing
from export.request_graph import serving_graph
from models.checkpoint import open_checkpoint
from models.config import ConfigError, RocketConfig, TrainConfig, read_config
from models.data.batches import Batch
from models.evaluate import main as evaluate_main
from models.evaluation import evaluate, network_scorer
from models.networks.config import DinConfig
from models.networks.din import Din
from models.networks.gwen import Gwen
from models.networks.network import Network
from models.networks.registry import build
from models.rocket import BOOSTER, Rocket, files_of, launch, owners, read_booster
from models.train import train_one
from models.training import average
from tests.market import DIN, DQM, Market, make_config
from tests.models.test_train import Command
from tests.models.test_training import EVERYTHING, at_step, left_in, same
from tests.models.world import SCHEMA, random_batch, shake

LIGHT = DinConfig(kind="din", embedding=4, attention_hidden=(2, 2), hidden=(4,))
BIG: dict[str, Any] = DIN | {"attention_hidden": [8, 4], "hidden": [16, 8]}


def rocket(seed: int = 0, **settings: Any) -> Rocket:
    """A light DIN and a larger one, with random weights, in training."""
    booster = {"kind": "din", "embedding": 4, "attention_hidden": [6, 3], "hidden": [8, 4], "position_bias": True}
    torch.manual_seed(seed)
    found = launch(build(LIGHT, SCHEMA), RocketConfig.model_validate({"booster": booster} | settings), SCHEMA)
    shake(found, seed)
    with torch.no_grad():
        for each in owners(found):
            each.arena.weight[0].zero_()
    return found.train()


def own(network: Network, other: Network) -> dict[str, torch.nn.Parameter]:
    """The parameters of `network` that `other` does not have."""
    shared = {id(p) for p in other.parameters()}
    return {name: p for name, p in network.named_parameters() if id(p) not in shared}


def hint_gradients(found: Rocket) -> dict[str, torch.Tensor]:
    """The gradient of the hint alone on each of the booster's own parameters."""
    batch = random_batch(12, 4, 7)
    torch.autograd.backward(found.hint(found.light(batch), found.booster(batch)))
    mine = own(found.booster, found.light)
    assert len(mine) > 5
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in mine.items()}


@pytest.mark.parametrize("method", ["hint", "kd"])
@pytest.mark.parametrize("share", [True, False])
def test_the_hint_never_reaches_the_booster(method: str, share: bool) -> None:
    gradients = hint_gradients(rocket(method=method, share=share))
    assert all(torch.count_nonzero(each) == 0 for each in gradients.values())


@pytest.mark.parametrize("method", ["hint", "kd"])
@pytest.mark.parametrize("share", [True, False])
def test_without_the_block_it_does(method: str, share: bool) -> None:
    gradients = hint_gradients(rocket(method=method, share=share, block=False))
    still = [name for name, each in gradients.items() if torch.count_nonzero(each) == 0]
    assert still == []


def test_the_booster_learns_as_if_the_hint_were_not_there() -> None:
    """Its own parameters get the gradient of its own cross-entropy, whatever the hint weighs."""
    batch = random_batch(12, 4, 7)
    heavy, none = rocket(hint=50.0), rocket(hint=0.0)
    torch.autograd.backward(heavy.loss(batch) + none.loss(batch))
    for one, two in zip(own(heavy.booster, heavy.light).values(), own(none.booster, none.light).values(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-8)
    mine = [p.grad for p in own(heavy.light, heavy.booster).values()]
    theirs = [p.grad for p in own(none.light, none.booster).values()]
    assert all(
        a is not None and b is not None and (a - b).abs().max() > 1e-4 for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("method", ["hint", "kd"])
def test_embeddings_may_be_blocked_too(method: str, share: bool) -> None:
    """They then learn as if the hint were not there, and the light net's layers as if nothing were blocked."""
    batch = random_batch(12, 4, 7)
    settings: dict[str, Any] = {"method": method, "share": share}
    blocked, through, none = (
        rocket(**settings, hint=5.0, block_arena=True), rocket(**settings, hint=5.0), rocket(**settings, hint=0.0)
    )  # fmt: skip
    losses = [each.loss(batch) for each in (blocked, through, none)]
    torch.testing.assert_close(losses[0], losses[1])
    for loss in losses:
        torch.autograd.backward(loss)

    def gradients(found: Rocket) -> dict[str, torch.Tensor]:
        return {name: p.grad for name, p in found.named_parameters() if p.grad is not None}

    mine, theirs, free = map(gradients, (blocked, through, none))
    assert mine.keys() == theirs.keys() == free.keys()
    for name, gradient in mine.items():
        expected = theirs[name] if name.startswith("light.") and "arena" not in name else free[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=name)
    assert (theirs["light.arena.weight"] - free["light.arena.weight"]).abs().max() > 1e-4


def test_the_averaged_booster_may_give_the_hint() -> None:
    """Its logits, without dropout, are what the light net is held to; the booster in training still learns."""
    found, averages, batch = rocket(0, teacher="averaged"), rocket(1), random_batch(12, 4, 7)
    found.averaged_in(averages)
    loss = found.loss(batch)
    torch.autograd.backward(loss)
    with torch.no_grad():
        taught = averages.booster.eval()(batch)
        light, booster = found.light(batch), found.booster(batch)
        clicks = sum(F.binary_cross_entropy_with_logits(logits, batch.labels) for logits in (light, booster))
    assert loss.item() == pytest.approx(float(clicks + 0.3 * (light - taught).square().mean()), rel=1e-5)
    assert all(p.grad is None for p in averages.parameters())
    assert all(p.grad is not None for p in own(found.booster, found.light).values())
    assert set(found.state_dict()) == set(rocket().state_dict())


def test_the_loss_by_hand() -> None:
    found, batch = rocket().eval(), random_batch(2, 2, 3)
    with torch.no_grad():
        pairs = list(
            zip(found.light(batch).tolist(), found.booster(batch).tolist(), batch.labels.tolist(), strict=True)
        )
        loss = found.loss(batch).item()
    entropy = [-math.log(1 / (1 + math.exp(-x if y else x))) for a, z, y in pairs for x in (a, z)]
    assert loss == pytest.approx(sum(entropy) / 4 + 0.3 * sum((a - z) ** 2 for a, z, _ in pairs) / 4, rel=1e-5)


def test_a_centred_hint_leaves_the_level_to_the_clicks() -> None:
    found = rocket(centre=True)
    light, booster = torch.tensor([0.4, -1.0, 3.0], requires_grad=True), torch.tensor([1.4, -2.0, 2.0])
    differences = [-1.0, 1.0, 1.0]
    mean = sum(differences) / 3
    hint = found.hint(light, booster)
    assert hint.item() == pytest.approx(sum((each - mean) ** 2 for each in differences) / 3, rel=1e-6)
    torch.testing.assert_close(found.hint(light + 5.0, booster), hint)
    (gradient,) = torch.autograd.grad(hint, light)
    assert gradient.sum().item() == pytest.approx(0.0, abs=1e-6)


def test_distillation_by_hand() -> None:
    """T² · KL(teacher ‖ student), both softened; nothing where they agree."""
    found = rocket(method="kd", temperature=2.0)
    light, booster = torch.tensor([0.4, -1.0, 3.0]), torch.tensor([1.4, -1.0, 0.2])
    expected = 0.0
    for a, z in zip(light.tolist(), booster.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-z / 2)), 1 / (1 + math.exp(-a / 2))
        expected += 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))) / 3
    assert found.hint(light, booster).item() == pytest.approx(expected, rel=1e-5)
    assert found.hint(booster, booster).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("share", [True, False])
def test_what_is_shared(share: bool) -> None:
    found = rocket(share=share)
    arenas = [each.arena.weight for each in (found.light, found.booster)]
    assert (arenas[0] is arenas[1]) == share
    assert owners(found) == ([found.light] if share else [found.light, found.booster])
    both = sum(p.numel() for network in (found.light, found.booster) for p in network.parameters())
    assert sum(p.numel() for p in found.parameters()) == both - share * arenas[0].numel()
    assert set(files_of(found)) == {"best.pt", BOOSTER}
    batch = random_batch(3, 2, 4)
    with torch.no_grad():
        found.eval()
        assert torch.equal(found(batch), found.light(batch))


def test_what_is_shared_is_averaged_once() -> None:
    averaged, network = rocket(seed=0), rocket(seed=1)
    weights = [each.light.arena.weight.detach().clone() for each in (averaged, network)]
    average(averaged, network, 0.9, 0)
    expected = 0.1 * weights[0] + 0.9 * weights[1]  # the decay rises: (1 + 0) / (10 + 0) at the first step
    torch.testing.assert_close(averaged.light.arena.weight.detach(), expected)
    assert averaged.booster.arena is averaged.light.arena


class Regularised(Gwen):
    """A network whose loss is more than the cross-entropy of its logits."""

    def loss(self, batch: Batch) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(self(batch), batch.labels) + self.arena.weight.square().sum()


def test_a_network_with_a_loss_of_its_own_is_refused() -> None:
    gwen = RocketConfig.model_validate({"booster": {"kind": "gwen", "embedding": 4}})
    light = build(LIGHT, SCHEMA)
    config = gwen.booster
    assert config.kind == "gwen"
    with pytest.raises(ConfigError, match=r"rocket\.booster, a Regularised, has a loss of its own"):
        Rocket(light, Regularised(config, SCHEMA), gwen)


def make_rocket(name: str, light: dict[str, Any] = DIN, booster: dict[str, Any] = BIG, **training: Any) -> TrainConfig:
    config = make_config(name, light, **training).model_dump(mode="json")
    return TrainConfig.model_validate(config | {"rocket": {"booster": booster}})


@pytest.mark.parametrize(
    ("rocket", "message"),
    [
        ({"booster": BIG | {"embedding": 6}}, "model.embedding is 4, rocket.booster.embedding is 6"),
        ({"booster": {"kind": "qscore"}}, "rocket.booster must be a network, a qscore is a table"),
        ({"booster": BIG, "temperature": 4}, "temperature is of method kd, it is 4 and method is hint"),
        ({"booster": BIG, "teacher": "averaged", "block": False}, "averaged weights have no gradient"),
        ({"booster": BIG, "teacher": "averaged"}, "rocket.teacher is averaged, but training.averaging is 0"),
        ({"booster": BIG, "centre": True, "method": "kd"}, "centre is true, but method is kd"),
        ({"booster": BIG, "hint": -1}, "greater than or equal to 0"),
        ({"booster": BIG, "blocked": True}, "Extra inputs are not permitted"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(rocket: dict[str, Any], message: str) -> None:
    config = make_config("pair", DIN).model_dump(mode="json")
    with pytest.raises(ValidationError) as caught:
        TrainConfig.model_validate(config | {"rocket": rocket})
    assert message in str(caught.value)


def test_without_sharing_dimensions_may_differ() -> None:
    config = make_config("pair", DIN).model_dump(mode="json")
    found = TrainConfig.model_validate(config | {"rocket": {"booster": BIG | {"embedding": 6}, "share": False}})
    assert found.rocket is not None
    with pytest.raises(ValidationError, match="model must be a network, a qscore is a table"):
        TrainConfig.model_validate(
            {"name": "q", "dataset": "d", "model": {"kind": "qscore"}, "rocket": {"booster": BIG}}
        )


def test_the_checkpoint_is_that_of_the_light_net(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "rocket"
    metrics = train_one(make_rocket("rocket"), market.data, folder, seed=1, progress=False)
    opened = open_checkpoint(folder)
    light = opened.network()
    assert isinstance(light, Din)
    assert light.config == make_config("light", DIN).model
    assert isinstance(serving_graph(light), DinServing)
    found = evaluate(network_scorer(light), market.data, "test")
    assert {f"test.{name}": value for name, value in found.items()}.items() <= opened.metrics.items()
    assert evaluate_main([str(folder), "--prepared", str(market.root), "--threads", "1"]) == 0
    assert f"{metrics['test.auc']:.4f}" in capsys.readouterr().out
    config = opened.config.rocket
    assert config is not None
    booster = read_booster(folder, config, market.data.schema)
    theirs = evaluate(network_scorer(booster), market.data, "test")
    assert {f"booster.test.{name}": value for name, value in theirs.items()}.items() <= metrics.items()
    assert torch.equal(booster.arena.weight, light.arena.weight), "of the same evaluation"
    assert metrics["booster.parameters"] > metrics["model.parameters"]
    assert metrics["booster.multiply_adds"] > metrics["model.multiply_adds"]


@pytest.mark.parametrize(("share", "teacher"), [(True, "averaged"), (False, "live")])
def test_stopped_and_continued_it_ends_the_same(market: Market, tmp_path: Path, share: bool, teacher: str) -> None:
    config = make_rocket("stopped", **EVERYTHING)
    assert config.rocket is not None
    config = config.model_copy(update={"rocket": config.rocket.model_copy(update={"share": share, "teacher": teacher})})

    def left(folder: Path) -> dict[str, Any]:
        return left_in(folder) | {"booster": torch.load(folder / BOOSTER, weights_only=True)}

    whole = train_one(config, market.data, tmp_path / "whole", seed=1, progress=False)
    stopped = tmp_path / "stopped"
    with at_step(6, lambda: signal.raise_signal(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        train_one(config, market.data, stopped, seed=1, progress=False)
    torch.manual_seed(999)
    again = train_one(config, market.data, stopped, seed=1, progress=False)
    assert same(left(tmp_path / "whole"), left(stopped))
    assert {k: v for k, v in again.items() if "train." not in k} == {
        k: v for k, v in whole.items() if "train." not in k
    }


def test_a_two_tower_network_may_help_a_din(market: Market, tmp_path: Path) -> None:
    metrics = train_one(make_rocket("mixed", DIN, DQM), market.data, tmp_path / "mixed", seed=1, progress=False)
    assert 0.5 < metrics["booster.test.auc"] < 1


def test_a_pair_that_does_not_fit_leaves_nothing(
    market: Market, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(market, tmp_path)
    path = command.config(DIN, "pair")
    path.write_text(path.read_text().replace("rocket: null", "rocket: {booster: {kind: din, embedding: 6}}"))
    assert command(path) == 2
    line = capsys.readouterr().err
    assert str(path) in line
    assert "model.embedding is 4, rocket.booster.embedding is 6" in line
    assert not command.out.exists()


def test_the_projects_pairs_are_those_of_the_paper() -> None:
    folder = Path(__file__).parents[2] / "models/configs"
    for path in sorted(folder.glob("*-rocket.yaml")):
        config = read_config(path)
        assert config.rocket is not None
        assert config.rocket.share
        assert config.rocket.block
    assert len(list(folder.glob("*-rocket.yaml"))) == 2
