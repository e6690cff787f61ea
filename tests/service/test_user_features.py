import asyncio

import pytest

from bundle.record import Event, UserRecord, pack
from service.breaker import Breaker
from service.errors import StoreError
from service.features import EmbeddedStore
from service.metrics import Metrics
from service.user_cache import Limits, UserCache
from service.user_features import UserReader
from tests.service.gated_store import Clock

RECORD = UserRecord({"city": "Lyon"}, (Event("click", 1, (1000,)),))


class FlakyStore(EmbeddedStore):
    """Works until `broken` or `slow` is set."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10, 10_000)
        self.broken = False
        self.slow = False
        self.reads = 0
        self.empty = False

    async def get(self, user_id: str) -> bytes | None:
        self.reads += 1
        if self.slow:
            await asyncio.sleep(10)
        if self.broken:
            raise StoreError("store unavailable")
        return None if self.empty else pack(RECORD)


def reader(store: FlakyStore, **changed: float) -> UserReader:
    values = {"timeout_s": 0.05, "copies": 0, "copy_seconds": 60.0, "failures": 1000} | changed
    breaker = Breaker(int(values["failures"]), 1.0)
    cache = UserCache(Limits(users=int(values["copies"]), bytes=10**6, stale_s=values["copy_seconds"]))
    return UserReader(store, breaker, Metrics(), cache, values["timeout_s"], int(values.get("max_record_bytes", 1000)))


def test_a_copy_is_used_while_it_is_fresh() -> None:
    async def scenario() -> None:
        store = FlakyStore()
        fresh, aged = reader(store, copies=1), reader(store, copies=1, copy_seconds=0.01)
        for each in (fresh, aged):
            assert (await each.read("x", 1.0)).record == RECORD
        store.broken = True
        await asyncio.sleep(0.02)
        kept = await fresh.read("x", 1.0)
        assert (kept.record, kept.known, kept.degraded) == (
            RECORD,
            True,
            "user_features: store unavailable, stale copy",
        )
        gone = await aged.read("x", 1.0)
        assert (gone.record, gone.known, gone.degraded) == (UserRecord(), False, "user_features: store unavailable")
        store.broken = False
        await fresh.read("y", 1.0)  # takes the only place
        store.broken = True
        assert not (await fresh.read("x", 1.0)).known

    asyncio.run(scenario())


@pytest.mark.parametrize(("timeout_s", "remaining_s"), [(0.03, 9.0), (9.0, 0.06), (9.0, -1.0)])
def test_a_slow_store_is_given_up_within_both_limits(timeout_s: float, remaining_s: float) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        store.slow = True
        async with asyncio.timeout(8):
            found = await reader(store, timeout_s=timeout_s).read("x", remaining_s)
        assert found.degraded == "user_features: timeout"

    asyncio.run(scenario())


def test_the_store_is_left_alone_after_failures() -> None:
    async def scenario() -> None:
        store = FlakyStore()
        store.broken = True
        users = reader(store, failures=3)
        for _ in range(10):
            found = await users.read("x", 1.0)
        assert store.reads == 3
        assert found.degraded == "user_features: store skipped after failures"

    asyncio.run(scenario())


def test_requests_that_are_late_themselves_do_not_open_the_breaker() -> None:
    async def scenario() -> None:
        store = FlakyStore()
        users = reader(store, failures=2)
        store.slow = True
        for _ in range(5):
            assert (await users.read("x", 0.0)).degraded == "user_features: timeout"
        store.slow = False
        assert (await users.read("x", 1.0)).known

    asyncio.run(scenario())


def test_short_deadlines_do_not_hide_a_dead_store_from_the_breaker() -> None:
    async def scenario() -> None:
        store = FlakyStore()
        users = reader(store, failures=2)
        store.slow = True
        for _ in range(4):
            await users.read("x", 0.04)  # 20 ms of 50
        assert store.reads == 2

    asyncio.run(scenario())


def test_a_user_the_store_forgot_leaves_no_copy() -> None:
    async def scenario() -> None:
        store = FlakyStore()
        users = reader(store, copies=10)
        assert (await users.read("x", 1.0)).known
        store.empty = True
        assert not (await users.read("x", 1.0)).known
        store.broken = True
        assert not (await users.read("x", 1.0)).known

    asyncio.run(scenario())


def test_a_large_record_is_not_read() -> None:
    async def scenario() -> None:
        size = len(pack(RECORD))
        assert (await reader(FlakyStore(), max_record_bytes=size).read("x", 1.0)).known
        found = await reader(FlakyStore(), max_record_bytes=size - 1).read("x", 1.0)
        assert (found.known, found.degraded) == (False, "user_features: unreadable")

    asyncio.run(scenario())


def test_the_breaker_lets_one_try_at_a_time() -> None:
    clock = Clock()
    breaker = Breaker(2, 5.0, clock)
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    clock.now += 5.1
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.failed()
    assert not breaker.allows()
    clock.now += 5.1
    assert breaker.allows()
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(3))
