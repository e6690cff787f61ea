"""FNN reads of each field what a factorisation machine has of it, and takes it over."""

import torch

from models.networks.fm import Fm
from models.networks.fnn import Fnn
from models.pretraining import take_over
from tests.models.networks.plain import plain_fields
from tests.models.networks.small import small
from tests.models.world import random_batch


def test_the_network_is_over_weights_and_vectors_of_all_fields() -> None:
    fnn, batch = small("fnn"), random_batch(3, 2, 5)
    assert isinstance(fnn, Fnn)
    with torch.no_grad():
        for m, found in enumerate(fnn(batch)):
            weights = plain_fields(fnn.first_order.vectors, fnn.first_order.arena, batch, m)
            vectors = plain_fields(fnn.vectors, fnn.arena, batch, m)
            r = fnn.vectors.of_one_request  # its inputs are those of the request, then those of the ad
            read = torch.cat([*weights[:r], *vectors[:r], *weights[r:], *vectors[r:]])
            torch.testing.assert_close(found, fnn.mlp(read.unsqueeze(0))[0, 0], rtol=0, atol=1e-5)


def test_it_starts_from_the_machine_and_from_nothing_else() -> None:
    fm, fnn, batch = small("fm", seed=1), small("fnn", seed=2), random_batch(3, 2, 5)
    assert isinstance(fm, Fm)
    assert isinstance(fnn, Fnn)
    before = {name: value.clone() for name, value in fnn.state_dict().items()}
    take_over(fnn, fm)
    after, machine = fnn.state_dict(), fm.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"arena.weight", "first_order.arena.weight"} | {
        f"{part}vectors.numbers.{side}" for part in ("", "first_order.") for side in ("user", "ad")
    }
    assert all(torch.equal(after[name], machine[name]) for name in changed)
    with torch.no_grad():
        for one, other in zip(
            fnn.vectors.of_batch(fnn.arena, batch), fm.vectors.of_batch(fm.arena, batch), strict=True
        ):
            assert torch.equal(one, other)


def test_other_networks_start_from_its_embeddings() -> None:
    fm, din = small("fm", seed=1), small("din", seed=2)
    take_over(din, fm)
    assert torch.equal(din.arena.weight, fm.arena.weight)
    assert not torch.equal(fm.arena.weight, small("din", seed=2).arena.weight)
