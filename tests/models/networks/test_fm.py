"""The factorisation machine against explicit loops over pairs of fields, and as two towers."""

from dataclasses import replace
from itertools import combinations

import torch

from models.networks.fm import Fm, sum_and_pairs
from tests.models.networks.plain import plain_fields
from tests.models.networks.small import small
from tests.models.world import random_batch


def test_pairs_by_hand() -> None:
    """(1, 2), (3, -1), (0, 2): products 1, 4 and -2."""
    total, pairs = sum_and_pairs(torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 2.0]]))
    assert total.tolist() == [4.0, 3.0]
    assert pairs.item() == 3.0


def test_equals_a_loop_over_pairs_of_fields() -> None:
    fm, batch = small("fm"), random_batch(3, 2, 5)
    assert isinstance(fm, Fm)
    assert fm.position is not None
    with torch.no_grad():
        for m, found in enumerate(fm(batch)):
            logit = fm.bias + fm.position.weight[batch.positions[m], 0]
            for term in plain_fields(fm.first_order.vectors, fm.first_order.arena, batch, m):
                logit = logit + term[0]
            for one, other in combinations(plain_fields(fm.vectors, fm.arena, batch, m), 2):
                logit = logit + one @ other
            torch.testing.assert_close(found, logit, rtol=0, atol=1e-5)


def test_an_ad_vector_knows_nothing_of_the_request() -> None:
    """Which is what lets an FM retrieve: its ad vectors are stored."""
    fm, batch = small("fm"), random_batch(4, 3, 5)
    assert isinstance(fm, Fm)
    with torch.no_grad():
        query, offset = fm.query(batch)
        vectors = fm.ad_vectors(batch.ads, batch.ad_numbers)
        assert query.shape == (4, 5)
        assert vectors.shape == (12, 5)
        every = query @ vectors.T + offset.unsqueeze(1)  # any request with any ad
        first = replace(batch, positions=torch.zeros(12, dtype=torch.int64))  # where all ads are online
        torch.testing.assert_close(fm(first), every[batch.request, torch.arange(12)])
