from dataclasses import replace

import pytest
import torch
from torch import nn

from models.config import ConfigError
from models.networks.config import GwenConfig, MtlConfig
from models.networks.gwen import Gwen
from models.networks.mtl import Mtl, SceneLinear
from tests.models.networks.small import small
from tests.models.world import SCHEMA, TABS, random_batch, shake


def mtl(name: str) -> Mtl:
    network = small(name)
    assert isinstance(network, Mtl)
    return network


def test_one_scene_is_gwen() -> None:
    pooled = Mtl(MtlConfig(kind="mtl", scene="tab", max_scenes=1, embedding=4, hidden=(8, 4)), SCHEMA)
    shake(pooled)
    gwen = Gwen(GwenConfig(kind="gwen", embedding=4, hidden=(8, 4), activation="relu"), SCHEMA)
    gwen.arena.load_state_dict(pooled.arena.state_dict())
    with torch.no_grad():
        for mine, its in zip([*gwen.mlp.layers, gwen.mlp.out], pooled.scenes, strict=True):
            assert isinstance(mine, nn.Linear)
            assert isinstance(its, SceneLinear)
            mine.weight.copy_(its.weight[0])
            mine.bias.copy_(its.bias[0])
        batch = random_batch(6, 4, 7)
        torch.testing.assert_close(pooled(batch), gwen(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mtl", "mtl-shared", "mtl-star"])
def test_each_request_is_scored_by_its_scenes_network(name: str) -> None:
    """One candidate at a time, layer by layer, with the weights of its scene."""
    network, batch = mtl(name), random_batch(12, 2, 4)
    batch = replace(batch, context=torch.arange(12).unsqueeze(1) % TABS, positions=torch.zeros(24).long())
    of_scene = [0, 0, 1, 2, 0] if name == "mtl" else [0, 0, 1, 2, 3]
    with torch.no_grad():
        once = torch.cat([network.of_request(batch), *network.of_histories(batch.histories)], dim=-1)
        ads, expected = network.of_ads(batch), []
        for m, r in enumerate(batch.request.tolist()):
            x = torch.cat([once[r], ads[m]])
            layers: list[tuple[torch.Tensor, torch.Tensor]] = []
            for layer in [*network.shared, *network.scenes]:
                assert isinstance(layer, SceneLinear | nn.Linear)
                at = of_scene[int(batch.context[r, 0])] if isinstance(layer, SceneLinear) else ...
                weight, bias = layer.weight[at], layer.bias[at]
                if name == "mtl-star":
                    assert isinstance(layer.common, nn.Linear)
                    weight, bias = weight * layer.common.weight, bias + layer.common.bias
                layers.append((weight, bias))
            for (weight, bias), activation in zip(layers, [*network.activations, nn.Identity()], strict=True):
                x = activation((weight @ x + bias).unsqueeze(0)).squeeze(0)
            expected.append(x[0])
        if network.position is not None:
            network.position.weight.zero_()
        torch.testing.assert_close(network(batch), torch.stack(expected), rtol=0, atol=1e-5)


def test_a_scene_teaches_its_own_network_and_the_shared_table() -> None:
    network, batch = mtl("mtl"), random_batch(6, 3, 4)
    batch = replace(batch, context=torch.full((6, 1), 2))
    network(batch).sum().backward()
    for layer in network.scenes:
        assert isinstance(layer, SceneLinear)
        assert layer.weight.grad is not None
        touched = layer.weight.grad.flatten(1).abs().sum(1) > 0
        assert touched.tolist() == [False, True, False]
    assert network.arena.weight.grad is not None
    assert network.arena.weight.grad.abs().sum() > 0


def test_scenes_of_a_star_start_as_one() -> None:
    torch.manual_seed(0)
    star = Mtl(MtlConfig(kind="mtl", scene="tab", star=True, embedding=4, hidden=(8, 4)), SCHEMA)
    for layer in star.scenes:
        assert isinstance(layer, SceneLinear)
        assert layer.common is not None
        weight, bias = layer.values()
        assert torch.equal(weight, layer.common.weight.expand_as(weight))
        assert torch.equal(bias, layer.common.bias.expand_as(bias))


def test_no_more_networks_than_scenes() -> None:
    """4 ids from 1 on: the unknown and three tabs."""
    for name, scenes in (("mtl", 3), ("mtl-shared", 4)):
        for layer in mtl(name).scenes:
            assert isinstance(layer, SceneLinear)
            assert len(layer.weight) == len(layer.bias) == scenes
    assert mtl("mtl-shared").network_of.tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("scene", ["city", "nothing"])
def test_a_scene_that_is_no_context_field_is_named(scene: str) -> None:
    with pytest.raises(ConfigError, match=rf"model.scene: '{scene}' is no context field of one id, known: \['tab'\]"):
        Mtl(MtlConfig(kind="mtl", scene=scene), SCHEMA)
