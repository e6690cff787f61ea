"""What one more candidate of a request costs a network, in multiply-adds of its matrix products."""

from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.data.batches import Batch
from models.networks.network import Network

CANDIDATES = 16


def multiply_adds(network: Network, batch: Batch) -> float:
    """Multiply-adds a candidate, of the one request in `batch` (at least one candidate; in evaluation mode).

    Matrix products with twice as many candidates less those with CANDIDATES of them: what is done once a request drops
    out. Products component by component, sums and activations are not counted.
    """
    few, many = (_products(network, batch, count) for count in (CANDIDATES, 2 * CANDIDATES))
    return (many - few) / CANDIDATES


def _products(network: Network, batch: Batch, count: int) -> int:
    """Multiply-adds of a request with `count` candidates, all of them the batch's first."""
    same, zeros = torch.zeros(count, dtype=torch.int64), torch.zeros(count, dtype=torch.int64)
    asked = replace(batch, ads=batch.ads[same], ad_numbers=batch.ad_numbers[same], request=zeros, positions=zeros)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(asked)
    return int(counter.get_total_flops()) // 2
