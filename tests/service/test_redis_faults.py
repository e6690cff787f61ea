"""Redis slow, down, or holding rubbish: the request is served, and no user ever gets another's data."""

import asyncio
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bundle.record import Event, UserRecord, pack, unpack
from service.app import create_app
from service.errors import StoreError
from service.features import within
from service.redis_store import RedisStore
from service.settings import Settings
from tests.patience import PATIENCE_S
from tests.service.conftest import RedisServer, client_of
from tests.service.proxy import DelayingProxy
from tests.service.test_stores import redis_store
from tests.service.world import demo_records, settings_for

ASK = {"user_id": "anna", "context": {"scene": "feed", "hour": 12}, "k": 5}


def record_of(user_id: str) -> bytes:
    return pack(UserRecord({"name": user_id}, (Event("click", 1, (user_id,)),)))


async def patiently(store: RedisStore, user: str) -> bytes | None:
    """What the store holds, however often a busy machine is late."""
    while True:
        try:
            return await store.get(user)
        except StoreError as error:
            if str(error) != "timeout":
                raise


@pytest.mark.parametrize("how", ["cancelled", "timed out by the caller", "timed out by the client"])
def test_an_unfinished_command_never_gives_its_answer_to_the_next_caller(redis_server: RedisServer, how: str) -> None:
    users = [f"user{i}" for i in range(20)]

    async def scenario() -> None:
        async with DelayingProxy(redis_server.port) as proxy:
            client_timeout = 0.02 if how == "timed out by the client" else 5.0
            store = redis_store(proxy.url, timeout_s=client_timeout, pool_size=4)
            direct = redis_store(redis_server.url, prefix=store._prefix)
            await direct.put((user, record_of(user)) for user in users)
            rng = random.Random(3)
            given_up = right = 0

            async def read(user: str) -> None:
                nonlocal given_up, right
                try:
                    if how == "cancelled":
                        task = asyncio.create_task(store.get(user))
                        asyncio.get_running_loop().call_later(rng.uniform(0, 0.04), task.cancel)
                        value = await task
                    else:
                        value = await within(0.02 if client_timeout > 1 else 5.0, store, user)
                except (StoreError, asyncio.CancelledError):
                    given_up += 1
                    return
                assert value == record_of(user), f"{user} got {value!r}"
                right += 1

            for _ in range(12):
                proxy.delay = rng.choice([0.0, 0.03])
                await asyncio.gather(*(read(user) for user in rng.sample(users, 6)))
            assert given_up > 5
            proxy.delay = 0.0
            for user in users:  # there are still places, and every connection is clean
                assert await patiently(store, user) == record_of(user)
            await store.close()
            await direct.close()

    asyncio.run(scenario())


def test_an_answer_that_nobody_asked_for_reaches_nobody() -> None:
    connections = 0

    async def answers_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        while command := await reader.read(1000):
            if b"GET" not in command:
                writer.write(b"-ERR unknown command\r\n" * command.count(b"*"))
            else:
                writer.write(b"$2\r\nc%d\r\n" % mine + (b"$5\r\nstray\r\n" if mine == 1 else b""))
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answers_twice, "127.0.0.1", 0)
        store = redis_store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        found = []
        for _ in range(3):
            found.append(await store.get("x"))
            await asyncio.sleep(0.05)  # the stray answer has come
        assert found == [b"c1", b"c2", b"c2"]
        await store.close()
        server.close()

    asyncio.run(scenario())


def redis_settings(folder: Path, url: str, **changed: Any) -> Settings:
    return settings_for(folder, redis_url=url, redis_prefix="faults:", **changed)


async def fill(server: RedisServer) -> None:
    store = redis_store(server.url, prefix="faults:")
    await store.put((user_id, pack(record)) for user_id, record in demo_records().items())
    await store.close()


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """0 when it was not counted yet."""
    lines = (await client.get("/metrics")).text.splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(f"{name} ")), 0.0)


async def rank(client: httpx.AsyncClient, **more: Any) -> Any:
    answer = await client.post("/v1/rank", json=ASK | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_users_come_from_redis(folder: Path, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        await fill(redis_server)
        async with (
            client_of(create_app(redis_settings(folder, redis_server.url))) as with_redis,
            client_of(create_app(settings_for(folder))) as embedded,
        ):
            mine, theirs = await rank(with_redis), await rank(embedded)
            assert mine["user"] == "known"
            assert mine["ads"] == theirs["ads"]

    asyncio.run(scenario())


def test_a_slow_redis_is_not_waited_for(folder: Path, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        await fill(redis_server)
        async with DelayingProxy(redis_server.port) as proxy:
            settings = redis_settings(
                folder,
                proxy.url,
                cache_users=0,
                breaker_failures=3,
                breaker_seconds=1.0,
                features_timeout_ms=250,
                redis_timeout_ms=200,
            )
            reads, degraded = "adrank_user_feature_reads_total", "adrank_degraded_total"
            counters = (
                f'{reads}{{outcome="timeout"}}',
                f'{reads}{{outcome="breaker"}}',
                f'{degraded}{{what="user_features",why="timeout"}}',
            )
            async with client_of(create_app(settings)) as client:
                while (usual := await rank(client))["user"] != "known":
                    await asyncio.sleep(0.05)  # on a busy machine Redis may be late by itself
                before = [await metric(client, name) for name in counters]
                proxy.holds = True  # an answer that never comes: who waited for it would not come back
                late = await rank(client)
                assert late["degraded"] == ["user_features: timeout"]
                assert late["user"] == "unknown"
                assert len(late["ads"]) == 5
                for _ in range(2):
                    await rank(client)
                asked = proxy.connections
                skipped = await rank(client)
                assert skipped["degraded"] == ["user_features: store skipped after failures"]
                assert proxy.connections == asked, "a connection that timed out is not used again"
                after = [await metric(client, name) for name in counters]
                assert [b - a for a, b in zip(before, after, strict=True)] == [3, 1, 3]
                proxy.holds = False
                async with asyncio.timeout(PATIENCE_S):
                    while (await rank(client))["ads"] != usual["ads"]:
                        await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_a_recent_copy_serves_while_redis_is_down(folder: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        server = RedisServer(tmp_path)
        try:
            await fill(server)
            settings = redis_settings(folder, server.url, breaker_failures=1000, cache_untold_seconds=0)
            async with client_of(create_app(settings)) as client:
                usual = await rank(client)
                server.stop()
                async with asyncio.timeout(PATIENCE_S):
                    while "adrank_user_cache_told 0.0" not in (await client.get("/metrics")).text:
                        await asyncio.sleep(0.005)
                copied = await rank(client)
                assert copied["ads"] == usual["ads"]
                assert copied["user"] == "known"
                assert copied["degraded"] == ["user_features: store unavailable (ConnectionError), stale copy"]
                other = await rank(client, user_id="bert")
                assert other["degraded"] == ["user_features: store unavailable (ConnectionError)"]
                assert other["user"] == "unknown"
                lost = await client.post(
                    "/v1/events", json={"events": [{"user_id": 1, "kind": "click", "ad_id": 1000}]}
                )
                assert lost.status_code == 503
                assert lost.json()["error"]["code"] == "store_unavailable"
                server.start()
                await fill(server)
                assert (await rank(client, user_id="bert"))["user"] == "known"
        finally:
            server.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"{}\n[1,", b"[]\n", b'{}\n["click"]\n', b"{}\n5\n"])
def test_an_unreadable_record_is_served_with_defaults(folder: Path, redis_server: RedisServer, value: bytes) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        await redis.set("faults:broken", value)
        await redis.aclose()
        async with client_of(create_app(redis_settings(folder, redis_server.url))) as client:
            answer = await rank(client, user_id="broken")
            assert answer["degraded"] == ["user_features: unreadable"]
            assert len(answer["ads"]) == 5
            nobody = await rank(client, user_id="nobody")
            assert answer["ads"] == nobody["ads"]
            assert 'reads_total{outcome="unreadable"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(scenario())


def test_a_value_of_another_type_is_served_with_defaults(folder: Path, redis_server: RedisServer) -> None:
    async def scenario() -> None:
        redis: Any = Redis.from_url(redis_server.url)
        await redis.delete("faults:list")
        await redis.rpush("faults:list", "x")
        await redis.aclose()
        async with client_of(create_app(redis_settings(folder, redis_server.url))) as client:
            answer = await rank(client, user_id="list")
            assert answer["degraded"] == ["user_features: store unavailable (ResponseError)"]

    asyncio.run(scenario())


def test_a_read_is_one_round_trip(redis_server: RedisServer) -> None:
    async def scenario() -> None:
        store = redis_store(redis_server.url)
        await store.put([("x", b"{}\n")])
        redis: Any = Redis.from_url(redis_server.url)
        await store.get("x")  # connecting may take commands of its own
        before = (await redis.info("stats"))["total_commands_processed"]
        for _ in range(50):
            await store.get("x")
        after = (await redis.info("stats"))["total_commands_processed"]
        assert after - before <= 52  # 50 GETs and the two INFOs
        assert unpack(await store.get("x") or b"") == UserRecord()
        await redis.aclose()
        await store.close()

    asyncio.run(scenario())
