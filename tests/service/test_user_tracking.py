"""What a real Redis tells of changes, and what is served while it does and while it does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from bundle.record import Event, UserRecord, pack, pack_events
from service import redis_store as module
from service.app import create_app
from service.breaker import Breaker
from service.features import Appended
from service.metrics import Metrics
from service.redis_store import RedisStore
from service.user_cache import Limits, UserCache
from service.user_features import UserFeatures, UserReader
from tests.patience import soon
from tests.service.conftest import RedisServer, client_of
from tests.service.proxy import DelayingProxy
from tests.service.test_redis_faults import fill, rank, redis_settings
from tests.service.test_stores import counter, redis_store

LONG_S = 1000.0
LIMITS = Limits(users=100, bytes=10**6, told_s=LONG_S, untold_s=0.0, stale_s=LONG_S)
"""Kept as good as for ever, so that whatever is read anew was read because of news."""


@dataclass
class Detour:
    """Reads over one store, changes over another: news may overtake answers."""

    reads: RedisStore
    rest: RedisStore

    async def get(self, user_id: str) -> bytes | None:
        return await self.reads.get(user_id)

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        return await self.rest.append(events, line)

    async def follow(self, told: Callable[[], None], changed: Callable[[Iterable[str]], None]) -> None:
        await self.rest.follow(told, changed)

    async def ping(self) -> None:
        await self.rest.ping()

    async def close(self) -> None:
        await self.reads.close()
        await self.rest.close()


def told(metrics: Metrics) -> bool:
    return "adrank_user_cache_told 1.0" in metrics.render().decode()


@dataclass
class Worker:
    """A reader as one process has it."""

    store: RedisStore | Detour
    reader: UserReader
    cache: UserCache
    metrics: Metrics

    async def read(self, user_id: str) -> UserFeatures:
        found = await self.reader.read(user_id, 2 * LONG_S)
        assert found.degraded is None
        return found

    def fresh(self, user_id: str) -> bool:
        return self.cache.fresh(user_id) is not None

    async def until_told(self, is_told: bool = True) -> None:
        await soon(lambda: told(self.metrics) == is_told)

    async def catch_up(self, other: RedisStore) -> None:
        """Return once the news of all changes so far have come: they come in the order of the changes."""
        await self.read("last")
        await other.put([("last", b"{}\n")])
        await soon(lambda: not self.fresh("last"))


@asynccontextmanager
async def worker(store: RedisStore | Detour, limits: Limits = LIMITS, follows: bool = True) -> AsyncIterator[Worker]:
    metrics, cache = Metrics(), UserCache(limits)
    made = Worker(store, UserReader(store, Breaker(10**6, 1.0), metrics, cache, LONG_S), cache, metrics)
    made.reader.start()
    try:
        if follows:
            await made.until_told()
        yield made
    finally:
        await made.reader.stop()
        await store.close()


def clicks(*ads: int) -> bytes:
    return pack_events(Event("click", 1, (ad,)) for ad in ads)


def ads(found: UserFeatures) -> list[object]:
    return [event.values[0] for event in found.record.events]


@pytest.fixture
def prefix() -> str:
    return f"tracked{next(counter)}:"


async def gets(redis: Any) -> int:
    """How many GETs the server has run."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_get", {"calls": 0})["calls"])


def test_a_kept_user_costs_redis_nothing(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        async with worker(redis_store(redis_server.url, prefix=prefix)) as mine:
            await mine.store.append({"x": clicks(1)})
            await soon(lambda: not mine.fresh("x"))
            before = await gets(redis)
            for _ in range(20):
                assert ads(await mine.read("x")) == [1]
                assert not (await mine.read("nobody")).known
            assert await gets(redis) - before <= 2 + 2  # the news of the append may still have come after the first
        await redis.aclose()

    asyncio.run(scenario())


def test_own_events_are_seen_at_once_and_those_of_others_when_told(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        async with (
            worker(redis_store(redis_server.url, prefix=prefix)) as mine,
            worker(redis_store(redis_server.url, prefix=prefix)) as theirs,
        ):
            for i in range(1, 4):
                for each in (mine, theirs):
                    await each.read("x")
                await mine.reader.append({"x": clicks(i)})
                assert ads(await mine.read("x")) == list(range(1, i + 1))
                await soon(lambda: not theirs.fresh("x"))
                assert ads(await theirs.read("x")) == list(range(1, i + 1))
            assert "adrank_user_cache_invalidations_total" in theirs.metrics.render().decode()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["created", "replaced", "deleted", "expired", "all deleted", "renamed", "many at once"])
def test_whatever_happens_to_a_key_is_told(redis_server: RedisServer, prefix: str, how: str) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        other = redis_store(redis_server.url, prefix=prefix)
        async with worker(redis_store(redis_server.url, prefix=prefix)) as mine:
            if how != "created":
                await other.put([("x", pack(UserRecord({"n": 1})))])
            await mine.catch_up(other)  # the news of that put
            before = await mine.read("x")
            assert mine.fresh("x")
            if how in ("created", "replaced"):
                await other.put([("x", pack(UserRecord({"n": 2})))])
            elif how == "deleted":
                await redis.delete(prefix + "x")
            elif how == "expired":
                await redis.pexpire(prefix + "x", 1)
                await asyncio.sleep(0.01)
                await redis.exists(prefix + "x")  # Redis finds it expired at the latest now
            elif how == "all deleted":
                await redis.flushall()
            elif how == "renamed":
                await redis.rename(prefix + "x", prefix + "y")
            else:
                await other.put((f"u{i}", b"{}\n") for i in range(5000))
                await other.put([("x", pack(UserRecord({"n": 2})))])
            await soon(lambda: not mine.fresh("x"))
            after = await mine.read("x")
            gone = how in ("deleted", "expired", "all deleted", "renamed")
            assert after.record.profile == ({} if gone else {"n": 2})
            assert (before.known, after.known) == (how != "created", not gone)
            if how == "all deleted":
                await soon(lambda: told(mine.metrics))
        await redis.aclose()
        await other.close()

    asyncio.run(scenario())


def test_only_users_are_told_of(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        store = redis_store(redis_server.url, prefix=prefix)
        began, seen = asyncio.Event(), list[str]()
        following = asyncio.create_task(store.follow(began.set, seen.extend))
        await began.wait()
        for key in (b"other:x", prefix.encode() + "é x".encode(), prefix.encode() + b"\xff", prefix.encode()):
            await redis.set(key, b"{}\n")
        await soon(lambda: len(seen) >= 3)
        assert seen == ["é x", "\ufffd", ""]
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()
        await redis.aclose()

    asyncio.run(scenario())


def test_news_that_overtake_an_answer_are_not_lost(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        async with DelayingProxy(redis_server.port) as proxy:
            slow = redis_store(proxy.url, prefix=prefix, timeout_s=5.0)
            direct = redis_store(redis_server.url, prefix=prefix)
            async with worker(Detour(slow, direct)) as mine:
                await direct.append({"x": clicks(1)})
                await mine.read("warm")  # connects
                await mine.catch_up(direct)
                proxy.holds = True
                early = asyncio.create_task(mine.read("x"))
                await soon(lambda: proxy.held == 1)  # Redis has answered, the answer is held back
                await direct.append({"x": clicks(2)})
                await soon(lambda: not mine.reader._flights)
                proxy.holds = False
                assert ads(await mine.read("x")) == [1, 2]
                assert not early.done()
                proxy.go_on.set()
                assert ads(await early) == [1], "asked before the event, answered from before it"
                assert ads(await mine.read("x")) == [1, 2]

    asyncio.run(scenario())


def test_a_lost_connection_empties_the_cache_until_it_is_back(tmp_path: Path, prefix: str) -> None:
    async def scenario() -> None:
        server = RedisServer(tmp_path)
        try:
            async with worker(redis_store(server.url, prefix=prefix)) as mine:
                await mine.reader.append({"x": clicks(1)})
                assert isinstance(mine.store, RedisStore)
                await mine.catch_up(mine.store)
                assert ads(await mine.read("x")) == [1]
                assert mine.fresh("x")
                server.stop()
                await mine.until_told(False)
                assert not mine.fresh("x")
                down = await mine.reader.read("x", 2 * LONG_S)
                assert down.degraded == "user_features: store unavailable (ConnectionError), stale copy"
                assert ads(down) == [1]
                server.start()
                assert not (await mine.read("x")).known  # nothing of it was saved; read over a new connection
                assert not mine.fresh("x")
                await mine.until_told()
                await mine.read("x")
                assert mine.fresh("x")
        finally:
            server.stop()

    asyncio.run(scenario())


def test_a_connection_that_has_gone_silent_is_noticed(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_S", 0.4)

    async def scenario() -> None:
        async with DelayingProxy(redis_server.port) as proxy:
            direct = redis_store(redis_server.url, prefix=prefix)
            async with worker(Detour(direct, redis_store(proxy.url, prefix=prefix))) as mine:
                await mine.read("x")
                await asyncio.sleep(1.0)  # quiet, but alive
                assert mine.fresh("x")
                assert told(mine.metrics)
                proxy.delay = 60.0
                await mine.until_told(False)
                assert not mine.fresh("x")
                proxy.delay = 0.0
                await mine.until_told()

    asyncio.run(scenario())


@pytest.mark.parametrize("untold_s", [0.0, LONG_S])
def test_a_redis_that_does_not_tell(
    redis_server: RedisServer, prefix: str, untold_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        await redis.execute_command("ACL", "SETUSER", "mute", "on", ">secret", "~*", "&*", "+@all", "-client|tracking")
        url = redis_server.url.replace("//", "//mute:secret@")
        limits = Limits(users=10, bytes=10**6, told_s=LONG_S, untold_s=untold_s, stale_s=LONG_S)
        async with worker(redis_store(url, prefix=prefix), limits, follows=False) as mine:
            with caplog.at_level(logging.WARNING):
                await soon(lambda: "does not tell which users change" in caplog.text)
            assert "NoPermissionError" in caplog.text
            assert "secret" not in caplog.text
            await mine.store.append({"x": clicks(1)})
            assert ads(await mine.read("x")) == [1]
            await mine.store.append({"x": clicks(2)})
            assert ads(await mine.read("x")) == ([1] if untold_s else [1, 2])
            await mine.reader.append({"x": clicks(3)})
            assert ads(await mine.read("x")) == [1, 2, 3], "own events at once, told or not"
            assert not told(mine.metrics)
        await redis.execute_command("ACL", "DELUSER", "mute")
        await redis.aclose()

    asyncio.run(scenario())


def test_a_password_is_used_for_news_too(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        await redis.execute_command("ACL", "SETUSER", "known", "on", ">secret", "~*", "&*", "+@all")
        async with worker(redis_store(redis_server.url.replace("//", "//known:secret@"), prefix=prefix)) as mine:
            assert not (await mine.read("x")).known
            await redis.set(prefix + "x", b"{}\n")
            await soon(lambda: not mine.fresh("x"))
            assert (await mine.read("x")).known, "written by somebody else, seen at once"
        await redis.execute_command("ACL", "DELUSER", "known")
        await redis.aclose()

    asyncio.run(scenario())


def test_records_that_are_not_served_are_not_kept(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        other = redis_store(redis_server.url, prefix=prefix)
        async with worker(redis_store(redis_server.url, prefix=prefix)) as mine:
            mine.reader._max_record_bytes = 100
            await other.put([("broken", b"rubbish"), ("long", pack(UserRecord({"x": "y" * 200})))])
            await asyncio.sleep(0.05)
            for name in ("broken", "long"):
                for _ in range(2):
                    found = await mine.reader.read(name, 2 * LONG_S)
                    assert (found.known, found.degraded) == (False, "user_features: unreadable")
                assert not mine.fresh(name)
            await other.put([("broken", b"{}\n")])
            assert (await mine.read("broken")).known
        await other.close()

    asyncio.run(scenario())


def test_the_pool_of_connections_is_bounded_and_used_again(redis_server: RedisServer, prefix: str) -> None:
    async def scenario() -> None:
        async with DelayingProxy(redis_server.port) as proxy:
            store = redis_store(proxy.url, prefix=prefix, pool_size=3)
            await asyncio.gather(*(store.get(f"u{i}") for i in range(50)))
            assert proxy.connections == 3
            await store.get("again")
            await store.ping()
            assert proxy.connections == 3
            await store.close()

    asyncio.run(scenario())


def test_two_services_on_one_redis(folder: Path, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        await fill(redis_server)
        settings = redis_settings(folder, redis_server.url, cache_seconds=1000)

        async def clicked(client: Any) -> list[Any]:
            return [ad["ad_id"] for ad in (await rank(client, user_id="bert", k=20))["ads"]]

        async with client_of(create_app(settings)) as one, client_of(create_app(settings)) as two:
            for client in (one, two):
                await until_metric(client, "adrank_user_cache_told 1.0")
                before = await clicked(client)
            events = [{"user_id": "bert", "kind": "click", "ad_id": 1001 + 5 * i} for i in range(6)]
            answer = await one.post("/v1/events", json={"events": events})
            assert answer.status_code == 200
            after = await clicked(one)
            assert after != before
            async with asyncio.timeout(10):
                while await clicked(two) != after:
                    await asyncio.sleep(0.01)
            for _ in range(3):  # the news of the events may come in between
                assert await clicked(one) == after
            await until_metric(one, 'adrank_user_cache_reads_total{outcome="hit"}')

    asyncio.run(scenario())


async def until_metric(client: Any, line: str) -> None:
    async with asyncio.timeout(10):
        while line not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
