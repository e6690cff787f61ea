"""What holds of every network: scores do not depend on how requests are batched or padded, and everything learns."""

from dataclasses import replace

import pytest
import torch

from models.data.batches import Batch
from models.networks.config import ModelConfig
from tests.models.networks.small import SMALL, small
from tests.models.world import random_batch


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


def test_every_kind_of_network_is_here() -> None:
    kinds = {each.model_fields["kind"].annotation.__args__[0] for each in ModelConfig.__args__[0].__args__}
    assert {config.kind for config in SMALL.values()} == kinds - {"qscore"}


@pytest.mark.parametrize("name", SMALL)
def test_request_grouped_equals_tiled(name: str) -> None:
    network, batch = small(name), random_batch(6, 4, 7)
    with torch.no_grad():
        torch.testing.assert_close(network(batch), network(one_candidate_each(batch)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_one_request_scores_as_among_others(name: str) -> None:
    """The features of a single request are broadcast, not copied."""
    network, batch = small(name), random_batch(3, 4, 7)
    last = batch.request == 2
    alone = replace(
        batch,
        user=batch.user[2:],
        user_numbers=batch.user_numbers[2:],
        context=batch.context[2:],
        context_numbers=batch.context_numbers[2:],
        histories={name: ids[2:] for name, ids in batch.histories.items()},
        ads=batch.ads[last],
        ad_numbers=batch.ad_numbers[last],
        request=torch.zeros(4, dtype=torch.int64),
        labels=batch.labels[last],
        positions=batch.positions[last],
    )
    with torch.no_grad():
        torch.testing.assert_close(network(alone), network(batch)[last], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_appended_padding_never_changes_a_score(name: str) -> None:
    network, batch = small(name), random_batch(6, 4, 7)
    padded = torch.nn.functional.pad(batch.histories["clicks"], (0, 0, 0, 13))
    with torch.no_grad():
        longer = network(replace(batch, histories={"clicks": padded}))
        assert (longer - network(batch)).abs().max() <= 1e-6


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name: str) -> None:
    network = small(name).train()
    torch.autograd.backward(network.loss(random_batch(30, 4, 7)))
    lazy = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
    # softmax does not see a constant added to every score, so its gradient is zero but for rounding; a cascade's
    # statistic is zero until ads are counted (test_cascade.py trains its weight)
    assert [name for name in lazy if not name.endswith((".history_clicks.out.bias", "of_statistic"))] == []


@pytest.mark.parametrize("name", [name for name, config in SMALL.items() if config.position_bias])
def test_the_bias_of_the_position_is_added(name: str) -> None:
    network, batch = small(name), random_batch(2, 3, 4)
    assert network.position is not None
    with torch.no_grad():
        shift = network(replace(batch, positions=torch.full((6,), 3))) - network(
            replace(batch, positions=torch.zeros(6).long())
        )
        expected = network.position.weight[3, 0] - network.position.weight[0, 0]
    torch.testing.assert_close(shift, expected.expand(6))
