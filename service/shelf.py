"""The bundles that a process has loaded: those it needs, the last ones it needed, and those it lets go of."""

import sys
from collections.abc import Collection
from dataclasses import dataclass

from bundle.folder import Bundle
from service.ladder import LoadedRung
from service.loaded import LoadedBundle
from service.scorer import Graph

OURS = 2
"""References to a graph that nobody else holds: that of Retired, and that of the call that counts them."""


@dataclass(frozen=True, slots=True)
class Retired:
    """What is to be freed of a bundle: its mapped arrays and sessions, each with its memory.

    A request holds the LoadedBundle that it began with, or one that was made of it, and these hold the graphs. So the
    number of references to one of them tells whether a request is left, at no cost for requests.
    """

    bundle: Bundle
    query: Graph
    rungs: tuple[LoadedRung, ...]

    @property
    def unused(self) -> bool:
        """Whether no request holds it any more."""
        return sys.getrefcount(self.query) <= OURS


class Shelf:
    """LoadedBundles by id, the most recently needed last. For one event loop."""

    def __init__(self, keep: int) -> None:
        """`keep`: bundles that stay loaded though they are not needed any more."""
        self._keep = keep
        self._held: dict[str, LoadedBundle] = {}
        self._retired: list[Retired] = []

    @property
    def held(self) -> dict[str, LoadedBundle]:
        """All that are loaded, by id."""
        return dict(self._held)

    @property
    def bundles(self) -> list[Bundle]:
        """Those that requests may still be answered from, the retired ones included."""
        return [*(each.bundle for each in self._held.values()), *(each.bundle for each in self._retired)]

    def add(self, loaded: LoadedBundle) -> None:
        """Hold one more. It counts as needed from the next `trim` on that names it."""
        self._held = {loaded.id: loaded, **self._held}

    def trim(self, needed: Collection[str]) -> None:
        """Retire what is not needed, but for the last ones that were."""
        for bundle_id in needed:
            if bundle_id in self._held:
                self._held[bundle_id] = self._held.pop(bundle_id)
        idle = [bundle_id for bundle_id in self._held if bundle_id not in needed]
        for bundle_id in idle[: len(idle) - self._keep] if len(idle) > self._keep else []:
            gone = self._held.pop(bundle_id)
            self._retired.append(Retired(gone.bundle, gone.query, gone.ladder.rungs))

    def take_unused(self) -> list[object]:
        """The retired ones that no request holds any more. They are freed where the list is emptied."""
        unused: list[object] = [each for each in self._retired if each.unused]
        self._retired = [each for each in self._retired if not any(each is gone for gone in unused)]
        return unused
