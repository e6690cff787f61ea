"""Where users' features come from: the protocol of a store, and the one that needs nothing else to run."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol

from bundle.folder import DemoUsers
from bundle.record import EMPTY_PROFILE, trim
from service.errors import StoreError


class FeatureStore(Protocol):
    """Packed records (bundle/record.py) by user id. Every method raises StoreError when the store fails."""

    async def get(self, user_id: str) -> bytes | None:
        """The user's record, None for a user the store does not know."""

    async def append(self, events: Mapping[str, bytes]) -> None:
        """Append packed events to each user's record, all or none, keeping the last ones of each kind.

        An unknown user gets a record with an empty profile.
        """

    async def ping(self) -> None:
        """Return when the store answers."""

    async def close(self) -> None:
        """Let go of connections."""


class EmbeddedStore:
    """The bundle's demo users, with appended events kept in this process's memory. Lost when it ends."""

    def __init__(self, users: Callable[[], DemoUsers | None], history_limit: int, max_users: int) -> None:
        """`users`: the demo users of whichever bundle is live.

        `max_users`: records with appended events kept; the least recently written are forgotten.
        """
        self._users = users
        self._limit = history_limit
        self._max_users = max_users
        self._written: OrderedDict[str, bytes] = OrderedDict()

    async def get(self, user_id: str) -> bytes | None:
        """See FeatureStore."""
        return self._record(user_id)

    async def append(self, events: Mapping[str, bytes]) -> None:
        """See FeatureStore. One task at a time: nothing here waits."""
        for user_id, packed in events.items():
            self._written[user_id] = trim((self._record(user_id) or EMPTY_PROFILE) + packed, self._limit)
            self._written.move_to_end(user_id)
            if len(self._written) > self._max_users:
                self._written.popitem(last=False)

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


async def within(seconds: float, store: FeatureStore, user_id: str) -> bytes | None:
    """`store.get`, given up after `seconds`: StoreError."""
    try:
        async with asyncio.timeout(seconds):
            return await store.get(user_id)
    except TimeoutError as error:
        raise StoreError("timeout") from error
