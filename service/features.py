"""Where users' features come from: the protocol of a store, and the one that needs nothing else to run."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bundle.folder import DemoUsers
from bundle.record import EMPTY_PROFILE, trim
from service.errors import StoreError


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events that were appended."""

    anew: int = 0
    """Records that were there, could not be appended to, and were started anew."""
    logged: bool = False
    """They are in the log of events."""
    trimmed: int = 0
    """Old entries of the log that gave way."""


class FeatureStore(Protocol):
    """Packed records (bundle/record.py) by user id. Every method raises StoreError when the store fails."""

    async def get(self, user_id: str) -> bytes | None:
        """The user's record, None for a user the store does not know."""

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        """Append packed events to each user's record, all or none, keeping the last ones of each kind.

        An unknown user gets a record with an empty profile. `line` is what the log of events takes in the same step,
        where the store has one.
        """

    async def follow(self, told: Callable[[], None], changed: Callable[[Iterable[str]], None]) -> None:
        """Call `changed` with the ids of users whose records others write, until the StoreError that ends it.

        `told` is called when that begins, and again whenever all users may have changed: what was read before the call
        may have changed unnoticed. Returns at once when nobody else writes.
        """

    async def ping(self) -> None:
        """Return when the store answers."""

    async def close(self) -> None:
        """Let go of connections."""


class EmbeddedStore:
    """The bundle's demo users, with appended events kept in this process's memory. Lost when it ends."""

    def __init__(
        self, users: Callable[[], DemoUsers | None], history_limit: int, max_users: int, max_bytes: int = 262_144
    ) -> None:
        """`users`: the demo users of whichever bundle is live.

        `max_users`: records with appended events kept; the least recently written are forgotten. `max_bytes`: of one
        record; the oldest events are dropped to fit.
        """
        self._users = users
        self._limit = history_limit
        self._max_users = max_users
        self._max_bytes = max_bytes
        self._written: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, user_id: str) -> bytes | None:
        """See FeatureStore."""
        return self._record(user_id)

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:  # noqa: ARG002
        """See FeatureStore. One task at a time: nothing here waits. There is no log."""
        for user_id, packed in events.items():
            trimmed = trim((self._record(user_id) or EMPTY_PROFILE) + packed, self._limit)
            self._written[user_id] = fitted(trimmed, self._max_bytes)
            self._written.move_to_end(user_id)
            if len(self._written) > self._max_users:
                self._written.popitem(last=False)
        return Appended()

    async def follow(self, told: Callable[[], None], changed: Callable[[Iterable[str]], None]) -> None:
        """Nobody else writes."""

    async def ping(self) -> None:
        """Always answers."""

    async def close(self) -> None:
        """Nothing to let go."""

    def _record(self, user_id: str) -> bytes | None:
        written = self._written.get(user_id)
        if written is not None:
            return written
        users = self._users()
        return None if users is None else users.get(user_id)


def fitted(record: bytes, max_bytes: int) -> bytes:
    """`record` without the oldest events that make it longer than `max_bytes`; the profile stays in any case."""
    if len(record) <= max_bytes:
        return record
    head, _, tail = record.partition(b"\n")
    room = max(0, max_bytes - len(head) - 1)
    start = len(tail) - room
    return head + b"\n" + (tail[tail.index(b"\n", start - 1) + 1 :] if start > 0 else tail)


async def within(seconds: float, store: FeatureStore, user_id: str) -> bytes | None:
    """`store.get`, given up after `seconds`: StoreError."""
    try:
        async with asyncio.timeout(seconds):
            return await store.get(user_id)
    except TimeoutError as error:
        raise StoreError("timeout") from error
