"""Matrix products a candidate, against sums over the layers' sizes."""

from dataclasses import replace

import pytest
import torch

from models.data.batches import Batch
from models.multiply_adds import multiply_adds
from tests.models.networks.small import small
from tests.models.world import random_batch

AD = 4 + 4 + 4 + 1
"""Width of a candidate in the small world; of a behaviour: 8; of a request without its history: 4 + 1 + 4."""
LENGTH = 7


def one() -> Batch:
    """A single request with a history of LENGTH."""
    batch = random_batch(2, 1, LENGTH, seed=3)
    return replace(
        batch,
        user=batch.user[1:],
        user_numbers=batch.user_numbers[1:],
        context=batch.context[1:],
        context_numbers=batch.context_numbers[1:],
        histories={name: ids[1:] for name, ids in batch.histories.items()},
        ads=batch.ads[1:],
        ad_numbers=batch.ad_numbers[1:],
        request=torch.zeros(1, dtype=torch.int64),
        labels=batch.labels[1:],
        positions=batch.positions[1:],
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gwen", AD * 8 + 8 * 4 + 4),
        ("mtl", AD * 8 + 8 * 4 + 4),
        ("mtl-shared", AD * 8 + 8 * 4 + 4),
        # gates and network over the ad and its cross
        ("cold", (AD + 8) * 5 + (AD + 8) * 8 + 8 * 4 + 4),
        # q's part, then a behaviour: q ⊙ k's part, second layer, scalar, weighted sum; then the network
        ("din", 8 * 6 + LENGTH * (8 * 6 + 6 * 3 + 3 + 8) + (AD + 8) * 8 + 8 * 4 + 4),
    ],
)
def test_layers_a_candidate(name: str, expected: int) -> None:
    assert multiply_adds(small(name), one()) == expected
    with torch.inference_mode():
        assert multiply_adds(small(name), one()) == expected
