"""Where the live flags of ads are kept: the protocol, and the store that needs nothing else to run.

A flag changes within seconds and belongs to no bundle. An ad's flags are the bits of one number; 0: it has none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from service.errors import InvalidRequestError

FLAGS = {"paused": 1, "budget_exhausted": 2}
"""Name -> bit."""


class Change(NamedTuple):
    """What is said of one ad."""

    said: int
    """The bits that are spoken of; the others stay as they are."""
    on: int
    """Those of them that are set from now on."""


class Mark(NamedTuple):
    """How far a follower has come. Another epoch means that the store's flags were lost or replaced."""

    epoch: str
    version: int


@dataclass(frozen=True, slots=True)
class News:
    """What a follower does not know yet."""

    mark: Mark
    flags: dict[str, int]
    """Ad id -> its flags now, 0 for none any more."""
    whole: bool
    """These are all flags there are; what the follower knew before is void."""
    size: int
    """Ads that have flags now: a follower that has another number of them must start anew."""


class FlagStore(Protocol):
    """The flags of ads by id, as text. Every method raises StoreError when the store fails."""

    async def change(self, changes: Mapping[str, Change]) -> int:
        """Take all changes or none; how many ads have other flags than before.

        InvalidRequestError when more ads would have flags than are kept.
        """

    async def news(self, mark: Mark | None) -> News:
        """What changed since `mark`; everything for None."""


class EmbeddedFlags:
    """Flags in this process's memory. Lost when it ends."""

    def __init__(self, most: int) -> None:
        """`most`: ads that may have flags."""
        self._most = most
        self._flags: dict[str, int] = {}
        self._version = 0

    async def change(self, changes: Mapping[str, Change]) -> int:
        """See FlagStore. One task at a time: nothing here waits."""
        changed = {}
        for ad_id, (said, on) in changes.items():
            before = self._flags.get(ad_id, 0)
            if (after := before & ~said | on) != before:
                changed[ad_id] = after
        grown = sum((after > 0) - (ad_id in self._flags) for ad_id, after in changed.items())
        if grown > 0 and len(self._flags) + grown > self._most:
            raise too_many(len(self._flags), self._most)
        for ad_id, after in changed.items():
            if after:
                self._flags[ad_id] = after
            else:
                del self._flags[ad_id]
        self._version += bool(changed)
        return len(changed)

    async def news(self, mark: Mark | None) -> News:
        """See FlagStore. Whoever missed a change gets everything."""
        now = Mark("embedded", self._version)
        if mark == now:
            return News(now, {}, whole=False, size=len(self._flags))
        return News(now, dict(self._flags), whole=True, size=len(self._flags))


def too_many(size: int, most: int) -> InvalidRequestError:
    """The refusal of changes that would exceed the bound."""
    return InvalidRequestError(
        f"{size} ads have flags already, with these there would be more than {most}; none was taken",
        "flags",
        f"at most {most} ads with flags",
    )
