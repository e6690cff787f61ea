"""A related task: what the score takes from it, what each loss teaches; without one it is the plain network."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.data.batches import Batch
from models.networks.config import MtlConfig
from models.networks.mtl import Mtl
from models.networks.registry import build
from models.networks.related import RelatedMtl, product
from tests.models.networks.small import SMALL, small
from tests.models.networks.test_networks import one_candidate_each
from tests.models.world import SCHEMA, random_batch

NAMES = ("mtl-related", "mtl-related-logit", "mtl-related-product")


def related(name: str) -> RelatedMtl:
    network = small(name)
    assert isinstance(network, RelatedMtl)
    return network


def alone(network: RelatedMtl, batch: Batch, *, other: bool) -> Tensor:
    """Logits of one task's networks, put into a plain network, without the bias of the position."""
    config = network.config.model_copy(update={"related": None, "position_bias": False})
    plain = build(config, SCHEMA)
    assert type(plain) is Mtl
    state = {name: value for name, value in network.state_dict().items() if name in plain.state_dict()}
    if other:
        shared = len(config.shared)
        for name, value in network.state_dict().items():
            if name.startswith("related_scenes."):
                state[name.removeprefix("related_")] = value
            if name.startswith("related_activations."):
                _, i, what = name.split(".")
                state[f"activations.{int(i) + shared}.{what}"] = value
    plain.load_state_dict(state)
    with torch.no_grad():
        logits: Tensor = plain.eval()(batch)
    return logits


@pytest.mark.parametrize("name", NAMES)
def test_the_score_is_that_of_two_plain_networks(name: str) -> None:
    network, batch = related(name), random_batch(6, 4, 7)
    own, other = (alone(network, batch, other=each) for each in (False, True))
    assert (own - other).abs().min() > 1e-4
    if name == "mtl-related-logit":
        assert network.share is not None
        assert network.share.item() != 1.0
        own = own + network.share.detach() * other
    elif name == "mtl-related-product":
        p, q = torch.sigmoid(own.double()), torch.sigmoid(other.double())
        own = torch.log(p * q / (1 - p * q)).float()
    if network.position is not None:
        own, other = (each + network.position.weight.detach()[batch.positions, 0] for each in (own, other))
    with torch.no_grad():
        torch.testing.assert_close(network(batch), own, rtol=0, atol=1e-5)
        for found, expected in zip(network.both(batch), (own, other), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_sum_of_both_by_hand(name: str) -> None:
    network, batch = related(name), random_batch(6, 4, 7)
    weight = {"mtl-related": 0.5}.get(name, 1.0)
    with torch.no_grad():
        logits, expected = network.both(batch), 0.0
        for each, labels, times in zip(logits, (batch.labels, batch.further["like"]), (1.0, weight), strict=True):
            losses = [
                -math.log(p if y else 1 - p)
                for p, y in zip(torch.sigmoid(each.double()).tolist(), labels.tolist(), strict=True)
            ]
            expected += times * sum(losses) / len(losses)
        assert float(network.loss(batch)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_requests_are_those_of_flat_rows(name: str) -> None:
    network, batch = related(name), random_batch(6, 4, 7)
    with torch.no_grad():
        assert float(network.loss(batch)) == pytest.approx(float(network.loss(one_candidate_each(batch))), abs=1e-5)


def touched(network: RelatedMtl, start: str) -> bool:
    """Whether a parameter whose name starts so has a gradient other than zero."""
    mine = [p.grad for name, p in network.named_parameters() if name.startswith(start) and p.grad is not None]
    return any(bool(each.abs().sum() > 0) for each in mine)


def test_the_related_task_learns_from_its_label_alone_where_its_logit_is_added() -> None:
    """The gradient of the asked task's loss is exactly zero on the related task's networks; not so in a product."""
    for name, reached in (("mtl-related", False), ("mtl-related-logit", False), ("mtl-related-product", True)):
        network, batch = related(name), random_batch(6, 4, 7)
        torch.autograd.backward(network(batch).sum())
        assert touched(network, "scenes.")
        assert touched(network, "arena.")
        assert touched(network, "related_scenes.") == reached, name


def test_the_related_label_teaches_the_table() -> None:
    network, batch = related("mtl-related"), random_batch(6, 4, 7)
    torch.autograd.backward(network.both(batch)[1].sum())
    assert touched(network, "arena.")
    assert touched(network, "related_scenes.")
    assert not touched(network, "scenes.")


@pytest.mark.parametrize("name", NAMES)
def test_a_score_needs_no_label(name: str) -> None:
    network, batch = related(name), random_batch(3, 4, 7)
    with torch.no_grad():
        torch.testing.assert_close(network(replace(batch, further={})), network(batch), rtol=0, atol=0)


def test_a_product_is_exact_and_bounded() -> None:
    logits = torch.tensor([-80.0, -30.0, -3.0, 0.0, 0.5, 4.0, 30.0, 80.0])
    a, b = torch.meshgrid(logits, logits, indexing="ij")
    found = product(a, b)
    exact = -torch.logsumexp(torch.stack([-a, -b, -a - b]).double(), dim=0)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-5)
    assert (found <= torch.minimum(a, b) + 1e-5).all()
    a = a.clone().requires_grad_()
    torch.autograd.backward(product(a, b).sum())
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_without_a_related_task_it_is_the_plain_network() -> None:
    config = SMALL["mtl"]
    assert isinstance(config, MtlConfig)
    assert type(build(config, SCHEMA)) is Mtl
