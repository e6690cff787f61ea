"""What the shadow gave the ads of an answer is logged beside it."""

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from service import shadow as module
from service.app import create_app
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.metrics import Metrics
from service.plan import Plan
from service.request_replay import find
from service.served_log import ServedLog, ShadowScores
from service.settings import Settings
from tests.service.conftest import RedisServer, client_of
from tests.service.plans import planned, put_live
from tests.service.test_served_log import ASKED, CARL, SlowLog, entries, metric, request
from tests.service.test_shadow import seen
from tests.service.world import Recipe, make_world, settings_for

POISONED = 1001
SCORES = ShadowScores("b2", [1, 2], [0.1, None])


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[Any]:
    with Redis.from_url(redis_server.url) as client:
        client.flushdb()
        client.set("u:carl", CARL)
        yield client


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """b2 knows the first 250 of the 300 ads, and gives one of them no finite score."""
    root = tmp_path_factory.mktemp("shadow-log")
    return [
        make_world(root, each)
        for each in (Recipe(bundle_id="b1"), Recipe(bundle_id="b2", ads=250, poisoned=(POISONED,)))
    ]


def settings_of(folder: Path, server: RedisServer, log_entries: int) -> Settings:
    return settings_for(folder, redis_url=server.url, redis_prefix="u:", log_entries=log_entries)


async def asked(client: httpx.AsyncClient, redis: Any, logged: int) -> tuple[dict[str, Any], str]:
    """An answer that shows ads that b2 knows, does not know, and cannot score; and /metrics once it is logged."""
    ads = [POISONED, 1003, 1004, 1290]
    answer = (await client.post("/v1/rank", json=ASKED | {"candidates": ads, "k": 4})).raise_for_status().json()
    assert (await seen(client, 1))["ranked"] == 1
    for _ in range(500):
        if redis.xlen("log:u:served") >= logged:
            break
        await asyncio.sleep(0.01)
    return answer, (await client.get("/metrics")).text


def test_the_scores_are_those_that_its_bundle_gives(
    folders: list[Path], redis: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OLDEST_S", 60.0)
    settings = settings_of(folders[0], redis_server, 1000)
    bundles = [load_bundle(folder, settings_for(folder)) for folder in folders]

    async def served(plan: Plan) -> tuple[dict[str, Any], str]:
        app = create_app(settings, plan.control)
        async with client_of(app) as client:
            await put_live(app, plan)
            return await asked(client, redis, 2)

    async def alone(ads: list[int]) -> Any:
        body = {"user_id": "carl", "context": ASKED["context"], "ads": ads}
        async with client_of(create_app(settings, bundles[1])) as client:
            return (await client.post("/v1/score", json=body)).json()["pctr"]

    answer, metrics = asyncio.run(served(planned(bundles, shadow={"bundle": "b2", "share": 1.0})))
    (logged,) = [json.loads(each[b"shadow"]) for each in entries(redis) if b"shadow" in each]
    redis.flushdb()  # of the state too, which serves b1
    redis.set("u:carl", CARL)
    shown = [ad["ad_id"] for ad in answer["ads"]]
    assert sorted(shown) == [POISONED, 1003, 1004, 1290]
    known = [ad for ad in shown if ad != 1290]
    assert logged["request_id"] == answer["request_id"]
    assert (logged["format"], logged["user_id"], logged["bundle_id"]) == (1, "carl", "b2")
    assert logged["ads"] == known
    assert logged["pctr"] == asyncio.run(alone(known))
    assert [ad for ad, pctr in zip(known, logged["pctr"], strict=True) if pctr is None] == [POISONED]
    assert metric(metrics, 'adrank_shadow_log_total{outcome="logged"}') == 1
    assert metric(metrics, 'adrank_served_log_total{outcome="logged"}') == 1


def test_without_a_log_nothing_is_written(
    folders: list[Path], redis: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OLDEST_S", 60.0)
    bundles = [load_bundle(folder, settings_for(folder)) for folder in folders]
    app = create_app(settings_of(folders[0], redis_server, 0), bundles[0])

    async def scenario() -> None:
        async with client_of(app) as client:
            await put_live(app, planned(bundles, shadow={"bundle": "b2", "share": 1.0}))
            _, metrics = await asked(client, redis, 0)
            assert "adrank_shadow_log_total{" not in metrics

    asyncio.run(scenario())
    assert entries(redis) == []


def test_a_slow_log_costs_scores_as_it_costs_answers(settings: Settings, loaded: LoadedBundle) -> None:
    """Both share `log_queue_bytes`; what finds no place is counted by itself."""

    async def scenario() -> None:
        store, metrics = SlowLog(), Metrics()
        log = ServedLog(store, metrics, settings.model_copy(update={"log_queue_bytes": 65_536}))
        log.start()
        for i in range(100):
            log.add(str(i), "u", b"x" * 1000, b"{}", request(loaded))
            log.shadowed(str(i), "u", SCORES)
        text = metrics.render().decode()
        answers, scores = (
            metric(text, f'adrank_{name}_log_total{{outcome="dropped"}}') for name in ("served", "shadow")
        )
        store.open.set()
        await log.stop()
        bodies = [json.loads(each[1]) for each in store.taken if each[0] == "shadow"]
        assert bodies[0] == {
            "format": 1,
            "request_id": "0",
            "user_id": "u",
            "bundle_id": "b2",
            "ads": [1, 2],
            "pctr": [0.1, None],
        }
        assert len(bodies) == 100 - scores
        assert len(store.taken) - len(bodies) == 100 - answers
        assert min(answers, scores) > 60
        text = metrics.render().decode()
        assert metric(text, 'adrank_shadow_log_total{outcome="logged"}') == len(bodies)

    asyncio.run(scenario())


def test_replay_finds_the_answer_and_not_its_shadow(folders: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "raw/served/2033-11-23/1-0_2-0.jsonl.gz"
    path.parent.mkdir(parents=True)
    lines = [{"id": "1-0", "shadow": {"request_id": "r1"}}, {"id": "2-0", "head": {"request_id": "r1"}}]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    assert find(tmp_path, "r1") == lines[1]
