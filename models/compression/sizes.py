"""What a network takes where it is served: bytes by arithmetic, multiply-adds by models/networks/cost.py.

a row of d values    fp32 4d    fp16 2d    int8 d + 4    int4 ⌈d/2⌉ + 4    (bundle/rounding.py)
"""

from dataclasses import dataclass

from models.networks.cost import cost_of
from models.networks.network import Network
from models.networks.registry import parameters


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of one network."""

    parameters: int
    table_bytes: int
    """Embedding tables."""
    dense_bytes: int
    """All other weights, and buffers that are served."""
    candidate: int
    """Multiply-adds for each candidate."""
    request: int
    """Multiply-adds once a request."""

    @property
    def bytes(self) -> int:
        """All weights."""
        return self.table_bytes + self.dense_bytes

    def figures(self) -> dict[str, float]:
        """Flat, as reports have them."""
        return {
            "bytes": self.bytes,
            "table_bytes": self.table_bytes,
            "parameters": self.parameters,
            "multiply_adds": self.candidate,
            "multiply_adds_request": self.request,
        }


def sizes_of(network: Network) -> Sizes:
    """Bytes, parameters and multiply-adds."""
    cost = cost_of(network)
    tables = network.arena.stored_bytes()
    arena = {id(p) for p in network.arena.parameters()}
    dense = sum(p.numel() * p.element_size() for p in network.parameters() if id(p) not in arena)
    return Sizes(parameters(network), tables, dense, cost.candidate, cost.request)
