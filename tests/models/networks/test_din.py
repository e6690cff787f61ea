from dataclasses import replace

import torch

from tests.models.networks.small import small
from tests.models.world import random_batch


def test_the_history_matters_to_din_per_candidate() -> None:
    din = small("din")
    batch = random_batch(2, 3, 6)
    other = replace(batch, histories={"clicks": torch.zeros_like(batch.histories["clicks"])})
    with torch.no_grad():
        change = din(batch) - din(other)
    assert change[:3].abs().max() == 0, "the first request's history is empty already"
    assert change[3:].std() > 1e-4, "candidates attend differently"
