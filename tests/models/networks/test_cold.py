"""Gates and crosses, against a plain formulation that takes one candidate and one field at a time."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.config import ConfigError
from models.data.batches import Batch
from models.networks.cold import Cold
from models.networks.config import ColdConfig
from tests.models.networks.small import SMALL, small
from tests.models.world import SCHEMA, random_batch

ALL = [
    "user.city",
    "user.age",
    "context.tab",
    "history.clicks",
    "ad.ad",
    "ad.tags",
    "ad.price",
    "ad.length",
    "cross.clicks",
]


def cold(name: str) -> Cold:
    network = small(name)
    assert isinstance(network, Cold)
    return network


def fields(network: Cold, batch: Batch, m: int) -> dict[str, Tensor]:
    """Every field's vector of one candidate."""
    r = int(batch.request[m])
    arena, ids = network.arena, batch.histories["clicks"][r]
    real = ids[ids[:, 0] != 0]
    behaviour = network.behaviours["history_clicks"]
    pooled = behaviour(arena, real).mean(0) if len(real) else torch.zeros(8)
    user = network.user(arena, batch.user[r], batch.user_numbers[r])
    ad = network.ad(arena, batch.ads[m], batch.ad_numbers[m])
    return {
        "user.city": user[:4],
        "user.age": user[4:],
        "context.tab": network.context(arena, batch.context[r], batch.context_numbers[r]),
        "history.clicks": pooled,
        "ad.ad": ad[:4],
        "ad.tags": ad[4:8],
        "ad.price": ad[8:12],
        "ad.length": ad[12:],
        "cross.clicks": behaviour(arena, batch.ads[m, :4]) * pooled,
    }


@pytest.mark.parametrize("name", ["cold", "cold-some"])
def test_equals_the_plain_form(name: str) -> None:
    network, batch = cold(name), random_batch(3, 2, 4)
    config = SMALL[name]
    assert isinstance(config, ColdConfig)
    kept = [field for field in ALL if not config.fields or field in config.fields]
    assert network.names == kept
    once = [field for field in kept if field.partition(".")[0] in ("user", "context", "history")]
    with torch.no_grad():
        expected, gates = [], []
        for m in range(6):
            values = fields(network, batch, m)
            everything = torch.cat([values[field] for field in kept])
            of_request = torch.cat([values[field] for field in once])
            gate = torch.sigmoid(torch.cat([network.once_gate(of_request), network.each_gate(everything)]))
            gated = torch.cat([values[field] * gate[i] for i, field in enumerate(kept)])
            expected.append(network.mlp(gated)[0])
            gates.append(gate)
        if network.position is not None:
            network.position.weight.zero_()
        torch.testing.assert_close(network(batch), torch.stack(expected), rtol=0, atol=1e-5)
        means = torch.stack(gates).mean(0).tolist()
        assert network.importance(batch) == pytest.approx(dict(zip(kept, means, strict=True)), abs=1e-5)


def test_fields_that_were_not_chosen_change_nothing() -> None:
    batch = random_batch(3, 2, 4)
    other = replace(batch, context=batch.context % 4 + 1, user_numbers=batch.user_numbers + 1)
    with torch.no_grad():
        assert torch.equal(cold("cold-some")(batch), cold("cold-some")(other))
        assert not torch.equal(cold("cold")(batch), cold("cold")(other))


def test_gates_of_the_request_do_not_see_the_candidate() -> None:
    network, batch = cold("cold"), random_batch(3, 2, 4)
    other = replace(batch, ads=batch.ads.flip(0), ad_numbers=batch.ad_numbers.flip(0))
    with torch.no_grad():
        (first, one), (second, two) = (network.gates(*network.vectors(each), each.request) for each in (batch, other))
    assert torch.equal(first, second)
    assert not torch.equal(one, two)
    assert one.shape == (6, 5)
    assert first.shape == (3, 4)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (("ad.ad", "ad.brand"), r"no fields \['ad.brand'\], known: user.city, .*cross.clicks"),
        (("user.city",), "has nothing of the ad"),
    ],
)
def test_fields_that_cannot_be_are_named(chosen: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Cold(ColdConfig(kind="cold", fields=chosen), SCHEMA)
