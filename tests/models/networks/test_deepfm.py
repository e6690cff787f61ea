"""DeepFM is a factorisation machine and a network over the very same vectors."""

from itertools import combinations

import torch

from models.networks.deepfm import DeepFm
from tests.models.networks.plain import plain_fields
from tests.models.networks.small import small
from tests.models.world import random_batch


def test_equals_a_loop_over_pairs_and_a_network_over_the_same_fields() -> None:
    deepfm, batch = small("deepfm"), random_batch(3, 2, 5)
    assert isinstance(deepfm, DeepFm)
    with torch.no_grad():
        for m, found in enumerate(deepfm(batch)):
            fields = plain_fields(deepfm.vectors, deepfm.arena, batch, m)
            terms = plain_fields(deepfm.first_order.vectors, deepfm.first_order.arena, batch, m)
            linear = torch.cat(terms).sum()
            pairs = torch.stack([one @ other for one, other in combinations(fields, 2)]).sum()
            deep = deepfm.mlp(torch.cat(fields).unsqueeze(0))[0, 0]
            torch.testing.assert_close(found, linear + pairs + deep, rtol=0, atol=1e-5)
