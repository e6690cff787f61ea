"""A request's user features: the store within a time-out, else a recent copy, else stated defaults. Never an error."""

from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

from bundle.errors import RecordError
from bundle.record import UserRecord, unpack
from service.breaker import Breaker
from service.errors import StoreError
from service.features import FeatureStore, within
from service.metrics import Metrics

NOBODY = UserRecord()
SHORTEST_WAIT_S = 0.005
"""A store that did not answer within less is not thought to fail: Redis takes 0.2 ms, a busy process a few."""


@dataclass(frozen=True, slots=True)
class UserFeatures:
    """What is known of a user, and what went wrong while asking."""

    record: UserRecord
    known: bool
    degraded: str | None = None


class UserReader:
    """Reads users from a store that may be slow, down, or hold rubbish."""

    def __init__(
        self,
        store: FeatureStore,
        breaker: Breaker,
        metrics: Metrics,
        timeout_s: float,
        copies: int,
        copy_seconds: float,
        max_record_bytes: int = 262_144,
    ) -> None:
        """`copies` users' last records are remembered for `copy_seconds`, to be used when the store fails.

        Records of more than `max_record_bytes` count as unreadable.
        """
        self._store = store
        self._breaker = breaker
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._max_copies = copies
        self._copy_seconds = copy_seconds
        self._max_record_bytes = max_record_bytes
        self._copies: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def read(self, user_id: str, remaining_s: float) -> UserFeatures:
        """The user's features, within the store's time-out and half of what is left of the request's deadline."""
        if not self._breaker.allows():
            return self._without_store(user_id, "store skipped after failures", "breaker")
        limit = min(self._timeout_s, remaining_s / 2)
        try:
            value = await within(max(0.0, limit), self._store, user_id)
        except StoreError as error:
            # a request that came too late itself says nothing about the store
            if str(error) != "timeout" or limit >= min(self._timeout_s, SHORTEST_WAIT_S):
                self._breaker.failed()
            return self._without_store(user_id, str(error), "timeout" if str(error) == "timeout" else "error")
        self._breaker.succeeded()
        if value is None:
            self._copies.pop(user_id, None)  # forgotten by the store, so forgotten here
            self._metrics.features("unknown")
            return UserFeatures(NOBODY, known=False)
        try:
            if len(value) > self._max_record_bytes:  # 1 MB takes 30 ms to read, during which nobody else is served
                raise RecordError(f"a record of {len(value)} bytes, at most {self._max_record_bytes} are read")
            record = unpack(value)
        except RecordError:
            return self._without_store(user_id, "unreadable", "unreadable")
        self._remember(user_id, value)
        self._metrics.features("known")
        return UserFeatures(record, known=True)

    def _without_store(self, user_id: str, why: str, outcome: str) -> UserFeatures:
        at, value = self._copies.get(user_id, (0.0, b""))
        if value and monotonic() - at <= self._copy_seconds:
            self._metrics.features(f"{outcome}_stale")
            return UserFeatures(unpack(value), known=True, degraded=f"user_features: {why}, stale copy")
        self._metrics.features(outcome)
        return UserFeatures(NOBODY, known=False, degraded=f"user_features: {why}")

    def _remember(self, user_id: str, value: bytes) -> None:
        if not self._max_copies:
            return
        self._copies[user_id] = (monotonic(), value)
        self._copies.move_to_end(user_id)
        if len(self._copies) > self._max_copies:
            self._copies.popitem(last=False)
