"""How many multiply-adds a network needs for a request, counted from the shapes of its matrix products.

Counted: products of matrices (torch.utils.flop_counter), each of m × k with k × n as m·k·n, and the weighted sum of
behaviours, which is one whose rows are gathered. Not counted: additions,
element by element products such as q ⊙ k, activations, and the lookup of embeddings. Histories have their full length.
The order of operations is that of models/networks; export/din_graph.py needs about as many in another order.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bundle.schema import UNKNOWN, FeatureSchema, Side
from models.data.batches import Batch
from models.networks.merging import merged
from models.networks.network import Network, TwoTower

BAGS = (torch.ops.aten._embedding_bag, torch.ops.aten._embedding_bag_forward_only)


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-adds."""

    request: int
    """Once a request, however many candidates it has."""
    candidate: int
    """For each candidate."""


def cost_of(network: Network) -> Cost:
    """Multiply-adds of `network`. Of two towers, as they are served: ad vectors are stored, so a candidate costs the
    inner product with one, and a request its query vector."""
    if not isinstance(network, TwoTower):
        return cost_of_graph(network)
    training = network.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        query, _ = network.eval().query(one_request(network.schema, 2))
    network.train(training)
    return Cost(_multiply_adds(counter), query.shape[-1])


def cost_of_graph(network: Network) -> Cost:
    """Multiply-adds of the network as a fine-ranker: of two towers, the ad's runs for every candidate."""
    training = network.training
    network.eval()
    served = merged(network)
    few, more = (_forward(served, one_request(network.schema, candidates)) for candidates in (2, 3))
    network.train(training)
    return Cost(few - 2 * (more - few), more - few)


def one_request(schema: FeatureSchema, candidates: int) -> Batch:
    """A request of unknown ids, with full histories."""

    def ids(*shape: int) -> torch.Tensor:
        return torch.full(shape, UNKNOWN, dtype=torch.int64)

    def numbers(rows: int, side: Side) -> torch.Tensor:
        return torch.zeros(rows, side.number_columns)

    return Batch(
        user=ids(1, schema.user.id_columns),
        user_numbers=numbers(1, schema.user),
        context=ids(1, schema.context.id_columns),
        context_numbers=numbers(1, schema.context),
        histories={h.name: ids(1, h.max_length, len(schema.history_columns(h))) for h in schema.histories},
        ads=ids(candidates, schema.ad.id_columns),
        ad_numbers=numbers(candidates, schema.ad),
        request=torch.zeros(candidates, dtype=torch.int64),
        labels=torch.zeros(candidates),
        positions=torch.zeros(candidates, dtype=torch.int64),
        rows=np.zeros(candidates, np.int32),
        users=np.zeros(candidates, np.int64),
        truth=None,
    )


def _forward(network: Network, batch: Batch) -> int:
    bags = dict.fromkeys(BAGS, _of_bag)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=bags) as counter:
        network(batch)
    return _multiply_adds(counter)


def _of_bag(weight: list[int], indices: list[int], *_: object, **__: object) -> int:
    """Of F.embedding_bag with weights: each of P indices multiplies and adds a row of D."""
    return 2 * indices[0] * weight[1]


def _multiply_adds(counter: FlopCounterMode) -> int:
    """It counts a multiplication and an addition as two."""
    return int(counter.get_total_flops()) // 2
