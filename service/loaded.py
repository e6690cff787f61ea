"""A bundle that is ready to serve: proved, with its sessions."""

from dataclasses import dataclass

from bundle.folder import Bundle
from control.reports import Check
from control.state import Auction, Platt
from service.budget import Estimates
from service.ladder import Ladder
from service.scorer import Graph

AS_EVER = Auction()
"""By pCTR × bid, without a reserve."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many ads leave each stage at most."""

    retrieval: int
    qscore: int
    prerank: int
    answer: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What the golden rows gave on this machine: the largest differences found."""

    requests: int
    query_deviation: float
    logit_deviation: float
    """Of all rungs that were loaded."""


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A bundle that was proved, with its sessions. Only the running estimates and the ladder's load gate change.

    What an arm of an experiment does otherwise is another such object that shares all the rest (service/views.py).
    """

    bundle: Bundle
    sizes: Sizes
    query: Graph
    ladder: Ladder
    proof: Proof
    estimates: Estimates
    platt: Platt | None = None
    """Corrects the fine-ranker's calibrated logits once more; None: they stand."""
    auction: Auction = AS_EVER
    checks: tuple[Check, ...] = ()
    """What the gate made sure of; empty where it was not asked."""

    @property
    def id(self) -> str:
        """The bundle's name."""
        return self.bundle.id

    @property
    def rows(self) -> int:
        """Rows of the catalogue arrays: the ads and two reserved ones."""
        return len(self.bundle.ads.bids)
