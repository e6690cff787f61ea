"""Holds the one live bundle. Publishing a new one is the exchange of a single reference."""

from dataclasses import dataclass

from bundle.folder import Bundle
from service.budget import Estimates
from service.errors import NotReadyError
from service.ladder import Ladder
from service.scorer import Graph


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
    """A bundle that was proved, with its sessions. Only the running estimates and the ladder's load gate change."""

    bundle: Bundle
    sizes: Sizes
    query: Graph
    ladder: Ladder
    proof: Proof
    estimates: Estimates

    @property
    def id(self) -> str:
        """The bundle's name."""
        return self.bundle.id

    @property
    def rows(self) -> int:
        """Rows of the catalogue arrays: the ads and two reserved ones."""
        return len(self.bundle.ads.bids)


class Registry:
    """The live bundle. A request takes the reference once and keeps it, so it never sees two bundles."""

    def __init__(self) -> None:
        self._live: LoadedBundle | None = None

    @property
    def is_ready(self) -> bool:
        """Whether a bundle is live."""
        return self._live is not None

    @property
    def live(self) -> LoadedBundle:
        """The live bundle. NotReadyError before the first one is published."""
        if self._live is None:
            raise NotReadyError("no bundle is loaded yet")
        return self._live

    def publish(self, loaded: LoadedBundle) -> None:
        """Make `loaded` the live bundle; requests under way keep the one they have."""
        self._live = loaded
