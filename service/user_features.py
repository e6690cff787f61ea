"""A request's user features: a fresh copy, else the store within a time-out, else an older copy, else stated defaults.

Never an error. Requests that miss the same user at the same time share one read of the store.
"""

import asyncio
import logging
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from bundle.errors import RecordError
from bundle.record import UserRecord, unpack
from service.breaker import Breaker
from service.errors import StoreError
from service.features import Appended, FeatureStore, within
from service.metrics import Metrics
from service.tasks import ended
from service.user_cache import CHANGED, StoredUser, UserCache

log = logging.getLogger("adrank.features")
NOBODY = UserRecord()
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Between attempts to be told of changes; doubled each time."""


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """What is known of a user, and what went wrong while asking."""

    known: bool = False
    degraded: str | None = None
    stored: StoredUser | None = None
    """The record that other requests share, None when nothing is known."""
    parsed: UserRecord | None = None
    """The same read already, by the request that fetched it."""

    @property
    def record(self) -> UserRecord:
        """Profile and events."""
        if self.parsed is not None:
            return self.parsed
        return NOBODY if self.stored is None else unpack(self.stored.packed)


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a read of the store came to nothing, for the answer and for the metric."""

    why: str
    outcome: str


_Flight = asyncio.Task[UserFeatures | _Failed]


class UserReader:
    """Reads users from a store that may be slow, down, or hold rubbish. For one event loop."""

    def __init__(
        self,
        store: FeatureStore,
        breaker: Breaker,
        metrics: Metrics,
        cache: UserCache,
        timeout_s: float,
        max_record_bytes: int = 262_144,
    ) -> None:
        """Records of more than `max_record_bytes` count as unreadable."""
        self._store = store
        self._breaker = breaker
        self._metrics = metrics
        self._cache = cache
        self._timeout_s = timeout_s
        self._max_record_bytes = max_record_bytes
        self._flights: dict[str, _Flight] = {}
        """The reads that a request may join: none that began before a change of its user was told."""
        self._running: set[_Flight] = set()
        self._following: asyncio.Task[None] | None = None

    async def read(self, user_id: str, remaining_s: float) -> UserFeatures:
        """The user's features, within the store's time-out and half of what is left of the request's deadline."""
        entry = self._cache.fresh(user_id)
        if entry is not None:
            self._metrics.cache_read("hit")
            return UserFeatures(entry.user is not None, stored=entry.user)
        limit = min(self._timeout_s, remaining_s / 2)
        if limit <= 0:  # says nothing about the store, so it is not asked
            return self._without_store(user_id, _Failed("timeout", "timeout"))
        flight = self._flights.get(user_id)
        self._metrics.cache_read("miss" if flight is None else "joined")
        if flight is None:
            if not self._breaker.allows():
                return self._without_store(user_id, _Failed("store skipped after failures", "breaker"))
            flight = self._start(user_id)
        # Unlike wait_for, wait leaves the read alone when this request is late or cancelled: others may wait for it.
        await asyncio.wait((flight,), timeout=limit)
        found = flight.result() if flight.done() else _Failed("timeout", "timeout")
        if isinstance(found, _Failed):
            return self._without_store(user_id, found)
        self._metrics.features("known" if found.known else "unknown")
        return found

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        """FeatureStore.append; afterwards no request is answered from what was read before."""
        try:
            return await self._store.append(events, line)
        finally:  # also of a failure it is not known whether the store took the events
            self.changed(events)

    def changed(self, user_ids: Iterable[str]) -> None:
        """The records of these users are not what they were."""
        count = 0
        for user_id in user_ids:
            count += self._cache.changed(user_id)
            self._flights.pop(user_id, None)  # who waits for it asked before; who asks now starts another
        if count:
            self._metrics.cache_changed(count)

    def start(self) -> None:
        """Have the store tell of changes from now on. While it does not, entries serve for less time."""
        if self._cache.limits.users and self._cache.limits.told_s:
            self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Give up what is still under way."""
        await ended(*self._running, self._following)

    async def _follow(self) -> None:
        """Listen until cancelled, whatever fails meanwhile."""
        pause = FIRST_PAUSE_S
        while True:
            state = self._cache.state
            try:
                await self._store.follow(partial(self._told, True), self.changed)
                return
            except StoreError as error:
                first = pause == FIRST_PAUSE_S or self._cache.state != state
                level = logging.WARNING if first else logging.DEBUG
                log.log(level, "the store does not tell which users change: %s; trying again", error)
            except Exception:
                log.exception("following the store's changes failed; trying again")
            finally:
                if self._cache.state != state:  # it did tell for a while
                    self._told(False)
                    pause = FIRST_PAUSE_S
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _told(self, told: bool) -> None:
        self._cache.told(told)
        self._flights.clear()
        self._metrics.cache_told(told)

    def _start(self, user_id: str) -> _Flight:
        flight = asyncio.create_task(self._fetch(user_id, self._cache.clock(), self._cache.state))
        self._flights[user_id] = flight
        self._running.add(flight)
        flight.add_done_callback(self._running.discard)
        return flight

    async def _fetch(self, user_id: str, began: float, state: int) -> UserFeatures | _Failed:
        """One read of the store, for all who wait for it."""
        mine = asyncio.current_task()
        try:
            value = await within(self._timeout_s, self._store, user_id)
        except StoreError as error:
            self._breaker.failed()
            why = str(error)
            return _Failed(why, "timeout" if why == "timeout" else "error")
        finally:
            # What was read while its user changed is not fresh: the change may have come after it.
            if self._flights.get(user_id) is mine:
                del self._flights[user_id]
            else:
                state = CHANGED
        self._breaker.succeeded()
        if value is None:
            self._cache.put(user_id, None, began, state)  # forgotten by the store, so no older copy either
            return UserFeatures()
        try:
            if len(value) > self._max_record_bytes:  # 1 MB takes 30 ms to read, during which nobody else is served
                raise RecordError(f"a record of {len(value)} bytes, at most {self._max_record_bytes} are read")
            record = unpack(value)
        except RecordError:
            return _Failed("unreadable", "unreadable")
        stored = StoredUser(value)
        self._cache.put(user_id, stored, began, state)
        return UserFeatures(True, stored=stored, parsed=record)

    def _without_store(self, user_id: str, failed: _Failed) -> UserFeatures:
        stored = self._cache.copy(user_id)
        if stored is not None:
            self._metrics.features(f"{failed.outcome}_stale")
            return UserFeatures(True, f"user_features: {failed.why}, stale copy", stored)
        self._metrics.features(failed.outcome)
        return UserFeatures(degraded=f"user_features: {failed.why}")
