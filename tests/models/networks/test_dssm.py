import math
from dataclasses import replace

import pytest
import torch

from models.networks.config import DssmConfig
from models.networks.dssm import Dssm
from tests.models.networks.small import small
from tests.models.world import SCHEMA, random_batch


def dssm(name: str) -> Dssm:
    network = small(name)
    assert isinstance(network, Dssm)
    return network


@pytest.mark.parametrize("name", ["dssm", "dssm-no-bias"])
def test_the_logit_is_a_scaled_cosine_and_the_ads_bias(name: str) -> None:
    network, batch = dssm(name), random_batch(3, 2, 4)
    encoder = network.behaviours["history_clicks"]
    with torch.no_grad():
        expected = []
        for m, r in enumerate(batch.request.tolist()):
            ids = batch.histories["clicks"][r]
            real = ids[ids[:, 0] != 0]
            pooled = encoder(network.arena, real).mean(0) if len(real) else torch.zeros(8)
            user = network.user(network.arena, batch.user[r], batch.user_numbers[r])
            scene = network.context(network.arena, batch.context[r], batch.context_numbers[r])
            u = network.request_tower(torch.cat([user, scene, pooled]))
            a = network.ad_tower(network.ad(network.arena, batch.ads[m], batch.ad_numbers[m]))
            cosine = float(u @ a[:5]) / math.sqrt(float(u @ u)) / math.sqrt(float(a[:5] @ a[:5]))
            bias = float(a[5]) if name == "dssm" else 0.0
            expected.append(math.exp(network.log_scale) * (cosine + bias) + float(network.offset))
        if network.position is not None:
            network.position.weight.zero_()
        torch.testing.assert_close(network(batch), torch.tensor(expected), rtol=0, atol=1e-5)


def test_ad_vectors_have_length_1_beside_their_bias() -> None:
    batch = random_batch(2, 5, 1)
    for name, width in (("dssm", 6), ("dssm-no-bias", 5)):
        vectors = dssm(name).ad_vectors(batch.ads, batch.ad_numbers)
        assert vectors.shape == (10, width)
        torch.testing.assert_close(vectors[:, :5].norm(dim=1), torch.ones(10))


def test_without_biases_logits_lie_within_the_scale() -> None:
    network, batch = dssm("dssm-no-bias"), random_batch(9, 9, 5)
    with torch.no_grad():
        assert (network(batch) - network.offset).abs().max() <= network.log_scale.exp() + 1e-5


def test_the_scale_starts_as_configured() -> None:
    network = Dssm(DssmConfig(kind="dssm", scale=4.0), SCHEMA)
    assert float(network.log_scale.detach().exp()) == pytest.approx(4)


def test_what_is_stored_and_asked_gives_the_logits_at_position_0() -> None:
    network, batch = dssm("dssm"), random_batch(3, 2, 4)
    assert network.position is not None
    assert network.position.weight[0] != 0
    with torch.no_grad():
        query, offset = network.query(batch)
        found = (query[batch.request] * network.ad_vectors(batch.ads, batch.ad_numbers)).sum(1) + offset[batch.request]
        expected = network(replace(batch, positions=torch.zeros(6, dtype=torch.int64)))
    torch.testing.assert_close(found, expected)
