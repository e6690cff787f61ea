"""Every answer is logged as it was served, and no answer waits for that."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from bundle.record import Event, UserRecord, pack
from control.state import Overrides
from service.app import create_app
from service.errors import SettingsError, StoreError
from service.loaded import LoadedBundle
from service.metrics import Metrics
from service.served_log import Inputs, ServedLog, digest, manifest_digest
from service.settings import Settings, read_settings
from service.timing import RequestTiming
from tests.service.conftest import RedisServer, client_of
from tests.service.world import settings_for

Make = Callable[..., Settings]
ASKED: dict[str, Any] = {"user_id": "carl", "context": {"scene": "feed", "hour": 12}, "k": 3}
CARL = pack(UserRecord({"city": "Oslo"}, (Event("click", 5, (1003,)),)))


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    with Redis.from_url(redis_server.url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def make(redis: Any, redis_server: RedisServer, folder: Path) -> Make:
    """Settings with a log."""

    def settings(**changed: Any) -> Settings:
        values = {"redis_url": redis_server.url, "redis_prefix": "u:", "log_entries": 1000}
        return settings_for(folder, **(values | changed))

    return settings


def entries(redis: Any, stream: str = "served") -> list[dict[bytes, bytes]]:
    return [fields for _, fields in redis.xrange(f"log:u:{stream}")]


def metric(text: str, name: str) -> float:
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name)), 0.0)


def test_an_answer_is_logged_with_the_bytes_it_was_made_from(make: Make, redis: Any, folder: Path) -> None:
    redis.set("u:carl", CARL)
    body = json.dumps(ASKED, indent=2).encode()

    async def scenario() -> httpx.Response:
        async with client_of(create_app(make())) as client:
            paused = {"flags": [{"ad_id": 1003, "paused": True}, {"ad_id": 1004, "budget_exhausted": True}]}
            assert (await client.put("/v1/ads/flags", json=paused)).status_code == 200
            return await client.post("/v1/rank", content=body, headers={"X-Request-Id": "mine"})

    answer = asyncio.run(scenario())
    flags, served = entries(redis)
    assert json.loads(flags[b"flags"]) == {"paused": [1003], "budget_exhausted": [1004]}
    assert (served[b"asked"], served[b"record"], served[b"answer"]) == (body, CARL, answer.content)
    head = json.loads(served[b"head"])
    assert (head["request_id"], head["user_id"], head["status"]) == ("mine", "carl", 200)
    assert (head["bundle_id"], head["version"], head["arms"]) == ("world", 1, {})
    assert head["manifest"] == manifest_digest(folder)
    assert head["flags"] == digest(flags[b"flags"]) == flags[b"digest"].decode()
    assert head["sums"] == {"asked": digest(body), "record": digest(CARL)}
    assert abs(head["time_ms"] - time.time() * 1000) < 60_000


def test_flags_are_logged_once_and_again_when_they_change(make: Make, redis: Any) -> None:
    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            for ad_id, paused in ((1003, True), (1004, True), (1003, False), (1004, False)):
                change = {"flags": [{"ad_id": ad_id, "paused": paused}]}
                assert (await client.put("/v1/ads/flags", json=change)).status_code == 200
                for _ in range(3):
                    assert (await client.post("/v1/rank", json=ASKED)).status_code == 200
                await asyncio.sleep(0.1)

    asyncio.run(scenario())
    found = entries(redis)
    sets = [json.loads(each[b"flags"])["paused"] for each in found if b"flags" in each]
    assert sets == [[1003], [1003, 1004], [1004]]
    named = [json.loads(each[b"head"])["flags"] for each in found if b"head" in each]
    assert len(named) == 12
    assert named[9:] == [None] * 3
    assert len(set(named)) == 4


def test_wrong_requests_are_not_logged_and_without_a_setting_nothing_is(make: Make, redis: Any) -> None:
    async def scenario(settings: Settings, status: int, body: dict[str, Any]) -> None:
        async with client_of(create_app(settings)) as client:
            assert (await client.post("/v1/rank", json=body)).status_code == status
            click = {"events": [{"user_id": 1, "kind": "click", "ad_id": 1003}]}
            logged = (await client.post("/v1/events", json=click)).json()["logged"]
            assert logged == (1 if settings.log_entries else 0)

    asyncio.run(scenario(make(), 422, ASKED | {"context": {"strange": 1}}))
    asyncio.run(scenario(make(log_entries=0), 200, ASKED))
    assert entries(redis) == []
    assert len(entries(redis, "events")) == 1


def test_events_are_logged_in_the_step_that_stores_them(make: Make, redis: Any) -> None:
    seen = {"user_id": 4, "kind": "impression", "ad_id": 1003, "request_id": "r1"}
    clicked = {"user_id": 4, "kind": "click", "ad_id": 1003, "request_id": "r1", "time_ms": 7}

    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            told = (await client.post("/v1/events", json={"events": [seen, clicked]})).json()
            assert (told["accepted"], told["ignored"], told["logged"]) == (1, 1, 2)
            assert (await client.post("/v1/events", json={"events": [seen]})).json()["logged"] == 1
            redis.delete("log:u:events")
            redis.set("log:u:events", "no stream")
            answer = await client.post("/v1/events", json={"events": [clicked | {"user_id": "dora"}]})
            assert answer.status_code == 503
            assert (await client.post("/v1/rank", json={"user_id": "dora"})).json()["user"] == "unknown"

    asyncio.run(scenario())
    assert redis.get("u:4") == b'{}\n["click",7,1003]\n'


def test_the_log_of_events_holds_what_was_sent(make: Make, redis: Any) -> None:
    events = [{"user_id": "é", "kind": "click", "ad_id": 1003, "request_id": 'r"1'}, {"user_id": 1, "kind": "search"}]
    events[1]["values"] = ["food"]

    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            assert (await client.post("/v1/events", json={"events": events})).status_code == 200

    asyncio.run(scenario())
    (entry,) = entries(redis, "events")
    assert json.loads(entry[b"events"]) == {"events": events}


def test_streams_keep_about_as_much_as_is_set_and_twice_while_a_collector_lives(make: Make, redis: Any) -> None:
    async def scenario(asked: int) -> str:
        async with client_of(create_app(make(log_entries=200))) as client:
            for _ in range(asked):
                await client.post("/v1/events", json={"events": [{"user_id": 1, "kind": "click", "ad_id": 1003}]})
            return (await client.get("/metrics")).text

    lost = metric(asyncio.run(scenario(420)), 'adrank_log_trimmed_total{stream="events"}')
    kept = redis.xlen("log:u:events")
    assert 200 <= kept < 320  # whole blocks of 100 entries go
    assert lost == 420 - kept
    redis.set("log:u:collector", "out")
    assert metric(asyncio.run(scenario(390 - kept)), 'adrank_log_trimmed_total{stream="events"}') == 0
    assert redis.xlen("log:u:events") == 390
    asyncio.run(scenario(200))
    assert redis.xlen("log:u:events") <= 401


class SlowLog:
    """Takes entries when it is told to; fails as often as it is told."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.failures = 0
        self.taken: list[Sequence[str | bytes]] = []

    async def log(self, entries: Sequence[Sequence[str | bytes]]) -> int:
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise StoreError("timeout")
        self.taken += entries
        return 0


def request(loaded: LoadedBundle) -> RequestTiming:
    timing = RequestTiming()
    timing.inputs = Inputs(loaded, 1, {}, Overrides(bundle=loaded.id))
    return timing


def test_a_slow_log_costs_answers_of_the_log_and_never_waits(settings: Settings, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        store, metrics = SlowLog(), Metrics()
        log = ServedLog(store, metrics, settings.model_copy(update={"log_queue_bytes": 65_536}))
        log.start()
        for i in range(100):
            log.add(str(i), "u", b"x" * 1000, b"{}", request(loaded))
        dropped = metric(metrics.render().decode(), 'adrank_served_log_total{outcome="dropped"}')
        assert dropped == 100 - 65_536 // 1502
        store.open.set()
        await log.stop()
        assert len(store.taken) == 65_536 // 1502
        text = metrics.render().decode()
        assert metric(text, 'adrank_served_log_total{outcome="logged"}') == len(store.taken)

    asyncio.run(scenario())


def test_what_fails_is_written_again_in_order(settings: Settings, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        store = SlowLog()
        store.failures = 2
        store.open.set()
        log = ServedLog(store, Metrics(), settings)
        log.start()
        for i in range(150):
            log.add(str(i), "u", b"{}", b"{}", request(loaded))
        log.failed("150", "u", b"{}", request(loaded), StoreError("timeout"))
        log.failed("151", "u", b"{}", request(loaded), ValueError("?"))
        await log.stop()
        heads = [json.loads(entry[1]) for entry in store.taken]
        assert [head["request_id"] for head in heads] == [str(i) for i in range(152)]
        assert [head["status"] for head in heads[149:]] == [200, 503, 500]
        assert "answer" not in store.taken[-1]

    asyncio.run(scenario())


def test_a_stop_waits_for_a_log_that_is_stuck_only_so_long(settings: Settings, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        metrics = Metrics()
        log = ServedLog(SlowLog(), metrics, settings, last_s=0.1)
        log.start()
        log.add("r", "u", b"{}", b"{}", request(loaded))
        await log.stop()
        assert metric(metrics.render().decode(), 'adrank_served_log_total{outcome="dropped"}') == 1

    asyncio.run(scenario())


def test_a_log_needs_redis(folder: Path) -> None:
    with pytest.raises(SettingsError, match="log_entries is 10, a log needs redis_url"):
        read_settings(bundle=folder, log_entries=10)
