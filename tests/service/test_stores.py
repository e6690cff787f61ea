"""The same tests for every feature store."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from bundle.folder import Bundle
from bundle.record import Event, UserRecord, pack, pack_events, trim, unpack
from service.errors import SettingsError, StoreError
from service.features import Appended, EmbeddedStore, FeatureStore, fitted
from service.redis_store import RedisStore
from tests.patience import PATIENCE_S
from tests.service.conftest import RedisServer, free_port
from tests.service.world import demo_records

LIMIT = 4
counter = iter(range(10_000))


def redis_store(url: str, **changed: Any) -> RedisStore:
    values: dict[str, Any] = {"timeout_s": 2.0, "pool_size": 8, "history_limit": LIMIT, "prefix": f"t{next(counter)}:"}
    values |= {"write_timeout_s": changed.get("timeout_s", 2.0), "max_record_bytes": 10_000}
    return RedisStore(url, **(values | changed))


@pytest.fixture(params=["embedded", "redis"])
def run(request: pytest.FixtureRequest, bundle: Bundle) -> Callable[[Callable[[FeatureStore], Awaitable[None]]], None]:
    """Runs a scenario with a store that holds the demo users."""

    async def with_store(scenario: Callable[[FeatureStore], Awaitable[None]]) -> None:
        store: FeatureStore
        if request.param == "embedded":
            store = EmbeddedStore(lambda: bundle.users, LIMIT, 100, 10_000)
        else:
            server: RedisServer = request.getfixturevalue("redis_server")
            redis = redis_store(server.url)
            await redis.put((user_id, pack(record)) for user_id, record in demo_records().items())
            store = redis
        try:
            await scenario(store)
        finally:
            await store.close()

    return lambda scenario: asyncio.run(with_store(scenario))


Run = Callable[[Callable[[FeatureStore], Awaitable[None]]], None]


def click(ad: int, at: int = 0) -> Event:
    return Event("click", at, (ad,))


def test_a_known_user_is_read_as_written(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        for user_id, record in demo_records().items():
            assert unpack(await store.get(user_id) or b"") == record

    run(scenario)


def test_an_unknown_user_is_none(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        assert await store.get("nobody") is None
        await store.ping()

    run(scenario)


def test_appended_events_are_read_next(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        await store.append({"bert": pack_events([click(5, 9)])})
        record = unpack(await store.get("bert") or b"")
        assert record.events == (*demo_records()["bert"].events, click(5, 9))
        assert record.profile == demo_records()["bert"].profile

    run(scenario)


def test_an_unknown_user_gets_an_empty_profile(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        await store.append({"dora": pack_events([click(1)]), "emil": pack_events([click(2), click(3)])})
        assert unpack(await store.get("dora") or b"") == UserRecord({}, (click(1),))
        assert unpack(await store.get("emil") or b"") == UserRecord({}, (click(2), click(3)))

    run(scenario)


def test_each_kind_keeps_its_last_events(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        searches = [Event("search", i, (f"line\nbreak {i}, é",)) for i in range(3)]
        written = pack(UserRecord({}))
        for i in range(10):
            events = pack_events([click(i), *searches[i : i + 1]])
            await store.append({"fred": events})
            written = trim(written + events, LIMIT)
        assert await store.get("fred") == written
        record = unpack(written)
        assert [event for event in record.events if event.kind == "click"] == [click(i) for i in range(6, 10)]
        assert [event for event in record.events if event.kind == "search"] == searches

    run(scenario)


def test_concurrent_appends_lose_nothing(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        await asyncio.gather(*(store.append({"gina": pack_events([Event(f"kind{i}", i, (i,))])}) for i in range(40)))
        record = unpack(await store.get("gina") or b"")
        assert sorted(event.time_ms for event in record.events) == list(range(40))

    run(scenario)


def test_users_with_odd_names(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        for name in ("a b", "a\nb", "é:*", "*", "a" * 128):
            await store.append({name: pack_events([Event("click", 0, (name,))])})
        for name in ("a b", "a\nb", "é:*", "*", "a" * 128):
            assert unpack(await store.get(name) or b"").events == (Event("click", 0, (name,)),)

    run(scenario)


def test_the_embedded_store_forgets_who_acted_least_recently(bundle: Bundle) -> None:
    async def scenario() -> None:
        store = EmbeddedStore(lambda: bundle.users, LIMIT, 2, 10_000)
        for name in ("x", "y", "x", "z"):
            await store.append({name: pack_events([click(1)])})
        assert await store.get("y") is None
        assert len(unpack(await store.get("x") or b"").events) == 2

    asyncio.run(scenario())


def test_redis_forgets_users_after_their_time(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        brief, long = (redis_store(redis_server.url, ttl_s=ttl_s) for ttl_s in (1, 60))
        for store in (brief, long):
            await store.append({"x": pack_events([click(1)])})
            await store.put([("y", b"{}\n")])
        async with asyncio.timeout(PATIENCE_S):
            while await brief.get("x") is not None or await brief.get("y") is not None:
                await asyncio.sleep(0.05)
        redis: Any = Redis.from_url(redis_server.url)
        for name in "xy":
            assert await long.get(name) is not None
            assert 0 < await redis.ttl(long._prefix + name) <= 60
        await redis.aclose()
        await brief.close()
        await long.close()

    asyncio.run(scenario())


def test_a_redis_that_is_not_there_is_a_store_error() -> None:
    async def scenario() -> None:
        store = redis_store(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)
        for call in (store.get("x"), store.append({"x": b"[1]\n"}), store.ping()):
            with pytest.raises(StoreError, match="store unavailable"):
                await call
        await store.close()

    asyncio.run(scenario())


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="'nonsense' cannot be used"):
        redis_store("nonsense")
    with pytest.raises(SettingsError) as caught:
        redis_store("redis://me:secret@host:port/0")
    assert "//...@host:port" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("end", ["?socket_timeout=60", "?protocol=3", "#x"])
def test_an_address_with_options_is_refused(end: str) -> None:
    with pytest.raises(SettingsError, match="options after the database are not taken"):
        redis_store("redis://127.0.0.1:1/0" + end)


def test_a_database_that_is_no_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="the database is a number, not 'users'"):
        redis_store("redis://127.0.0.1:1/users")


def test_a_batch_with_one_impossible_user_changes_nothing(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = redis_store(redis_server.url)
        redis: Any = Redis.from_url(redis_server.url)
        await redis.rpush(store._prefix + "list", "x")
        with pytest.raises(StoreError, match="store unavailable"):
            await store.append({"before": pack_events([click(1)]), "list": pack_events([click(2)])})
        assert await store.get("before") is None
        await redis.aclose()
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [b"", b"[]\n", b"{}", b'{}\n["click",1,2]', b"{" + b" " * 10_000 + b"}\n"])
def test_events_start_an_unreadable_record_anew(redis_server: RedisServer, value: bytes) -> None:
    async def scenario() -> None:
        store = redis_store(redis_server.url)
        await store.put([("broken", value), ("whole", b"{}\n")])
        assert await store.append({"broken": pack_events([click(1)]), "whole": pack_events([click(2)])}) == Appended(
            anew=1
        )
        assert unpack(await store.get("broken") or b"") == UserRecord({}, (click(1),))
        assert unpack(await store.get("whole") or b"") == UserRecord({}, (click(2),))
        await store.close()

    asyncio.run(scenario())


def test_a_record_stays_below_its_bytes(run: Run) -> None:
    async def scenario(store: FeatureStore) -> None:
        searches = [Event(f"kind{i}", i, ("x" * 900,)) for i in range(30)]
        written = pack(demo_records()["anna"])
        for each in searches:
            await store.append({"anna": pack_events([each])})
            written = fitted(trim(written + pack_events([each]), LIMIT), 10_000)
        assert await store.get("anna") == written
        assert 9_000 < len(written) <= 10_000
        record = unpack(written)
        assert record.profile == demo_records()["anna"].profile
        assert list(record.events) == searches[-len(record.events) :]

    run(scenario)


def test_a_profile_stays_whatever_its_size() -> None:
    for most in range(20):
        assert fitted(b"{}\n[1]\n[22]\n", most) == b"{}\n" + (
            b"[1]\n[22]\n" if most >= 12 else b"[22]\n" if most >= 8 else b""
        )
