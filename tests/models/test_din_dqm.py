"""DIN and DQM: scores do not depend on how requests are batched or padded, and follow their definitions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.config import DinConfig, DqmConfig
from models.data.batches import Batch
from models.din import Din
from models.dqm import Dqm
from tests.models.world import SCHEMA, random_batch, shake

DIN = DinConfig(kind="din", embedding=4, attention_hidden=(6, 3), hidden=(8, 4), position_bias=True)
DQM = DqmConfig(kind="dqm", embedding=4, dimension=5, hidden=(8,))


def networks() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    made = [Din(DIN, SCHEMA), Din(DIN.model_copy(update={"attention": "softmax"}), SCHEMA), Dqm(DQM, SCHEMA)]
    for network in made:
        shake(network)
        network.eval()
    return made


def one_candidate_each(batch: Batch) -> Batch:
    """The same impressions as requests of one candidate: what tiled data look like."""
    request = batch.request
    return replace(
        batch,
        user=batch.user[request],
        user_numbers=batch.user_numbers[request],
        context=batch.context[request],
        context_numbers=batch.context_numbers[request],
        histories={name: ids[request] for name, ids in batch.histories.items()},
        request=torch.arange(len(request)),
    )


@pytest.mark.parametrize("network", networks())
def test_request_grouped_equals_tiled(network: torch.nn.Module) -> None:
    batch = random_batch(6, 4, 7)
    with torch.no_grad():
        torch.testing.assert_close(network(batch), network(one_candidate_each(batch)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("network", networks())
def test_appended_padding_never_changes_a_score(network: torch.nn.Module) -> None:
    batch = random_batch(6, 4, 7)
    padded = torch.nn.functional.pad(batch.histories["clicks"], (0, 0, 0, 13))
    with torch.no_grad():
        longer = network(replace(batch, histories={"clicks": padded}))
        assert (longer - network(batch)).abs().max() <= 1e-6


@pytest.mark.parametrize("network", networks())
def test_every_parameter_learns(network: torch.nn.Module) -> None:
    network.train()
    network(random_batch(30, 4, 7)).sum().backward()
    lazy = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # softmax does not see a constant added to every score, so its gradient is zero but for rounding
    assert [name for name in lazy if name != "attention.history_clicks.out.bias"] == []


def test_the_history_matters_to_din_per_candidate() -> None:
    din = networks()[0]
    batch = random_batch(2, 3, 6)
    other = replace(batch, histories={"clicks": torch.zeros_like(batch.histories["clicks"])})
    with torch.no_grad():
        change = din(batch) - din(other)
    assert change[:3].abs().max() == 0, "the first request's history is empty already"
    assert change[3:].std() > 1e-4, "candidates attend differently"


def test_position_bias_is_added() -> None:
    din = networks()[0]
    assert isinstance(din, Din)
    assert din.position is not None
    batch = random_batch(2, 3, 4)
    with torch.no_grad():
        shift = din(replace(batch, positions=torch.full((6,), 3))) - din(
            replace(batch, positions=torch.zeros(6).long())
        )
        expected = din.position.weight[3, 0] - din.position.weight[0, 0]
    torch.testing.assert_close(shift, expected.expand(6))


def test_dqm_is_the_inner_product_of_three_domains() -> None:
    dqm = networks()[2]
    assert isinstance(dqm, Dqm)
    batch = random_batch(3, 2, 4)
    with torch.no_grad():
        pooled: list[Tensor] = []
        for ids in batch.histories["clicks"]:
            real = ids[ids[:, 0] != 0]
            encoder = dqm.behaviours["history_clicks"]
            pooled.append(encoder(dqm.arena, real).mean(0) if len(real) else torch.zeros(8))
        user = torch.cat([dqm.user(dqm.arena, batch.user, batch.user_numbers), torch.stack(pooled)], dim=-1)
        u = dqm.user_tower(user)
        scene = dqm.scene_tower(dqm.context(dqm.arena, batch.context, batch.context_numbers))
        s, bias = scene[:, :5], scene[:, 5]
        vectors = dqm.ad_vectors(batch.ads, batch.ad_numbers)
        a, ad_bias = vectors[:, :5], vectors[:, 5]
        r = batch.request
        expected = (u[r] * a).sum(1) + (s[r] * a).sum(1) + (u * s).sum(1)[r] + bias[r] + ad_bias
        torch.testing.assert_close(dqm(batch), expected)
