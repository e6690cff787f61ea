"""/v1/ads/flags: an ad that is paused is gone from every answer, in this process at once and in the others soon."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from service import middleware
from service.app import create_app
from service.settings import Settings
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer, call, client_of, free_port
from tests.service.test_serve import served
from tests.service.world import Recipe, make_world, settings_for

PATH = "/v1/ads/flags"
Make = Callable[..., Settings]


@pytest.fixture(params=["embedded", "redis"])
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    """Settings with either store. Nothing is followed but by one's own changes."""
    slow = {"flags_poll_seconds": 60, "flags_stale_seconds": 61}
    if request.param == "embedded":
        return lambda **changed: settings_for(folder, **slow | changed)
    server: RedisServer = request.getfixturevalue("redis_server")
    name = f"{request.node.name}:"
    return lambda **changed: settings_for(folder, redis_url=server.url, redis_prefix=name, **slow | changed)


async def put(client: httpx.AsyncClient, *flags: dict[str, Any], status: int = 200) -> Any:
    answer = await client.put(PATH, json={"flags": list(flags)})
    assert answer.status_code == status, answer.text
    return answer.json()


async def look(client: httpx.AsyncClient, **params: Any) -> Any:
    answer = await client.get(PATH, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def shown(client: httpx.AsyncClient, **more: Any) -> Any:
    answer = await client.post("/v1/rank", json={"user_id": "anna", "k": 20, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: Any) -> set[int]:
    return {ad["ad_id"] for ad in answer["ads"]}


def test_flagged_ads_are_gone_from_the_next_answer_and_come_back(make: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        before = await shown(client)
        first, second, *_ = [ad["ad_id"] for ad in before["ads"]]
        assert before["stages"][0]["note"] == "300 of 300 ads eligible"
        told = await put(
            client,
            {"ad_id": first, "paused": True},
            {"ad_id": str(second), "budget_exhausted": True},
            {"ad_id": 7, "paused": True},
        )
        assert (told["changed"], told["unknown_ads"]) == (3, 1)
        after = await shown(client)
        assert ids(after) & {first, second} == set()
        assert after["stages"][0]["note"] == "298 of 300 ads eligible"
        assert after["degraded"] == before["degraded"] == []
        assert (await put(client, {"ad_id": first, "paused": True}))["changed"] == 0
        await put(client, {"ad_id": first, "paused": False}, {"ad_id": second, "paused": True})
        assert ids(await shown(client)) & {first, second} == {first}
        await put(client, {"ad_id": second, "budget_exhausted": False, "paused": False})
        assert (await shown(client))["ads"] == before["ads"]

    call(make(), scenario)


def test_flagged_own_candidates_are_listed_with_the_reason(make: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await put(
            client,
            {"ad_id": 1000, "paused": True, "budget_exhausted": True},
            {"ad_id": 1001, "budget_exhausted": True},
        )
        candidates = [1003, "1001", 1000, 5, 1001, 1002]
        answer = await shown(client, candidates=candidates, filters={"category": {"none_of": ["food"]}})
        assert ids(answer) == {1003}
        assert answer["unknown_candidates"] == [5]
        assert answer["excluded_candidates"] == [
            {"ad_id": "1001", "reason": "budget_exhausted"},
            {"ad_id": 1000, "reason": "paused"},
            {"ad_id": 1002, "reason": "filter: category"},
        ]
        stage = answer["stages"][0]
        assert stage["note"] == "own candidates: 1 unknown, 1 repeated, 3 excluded"
        assert (stage["in"], stage["out"]) == (6, 1)
        scored = await client.post("/v1/score", json={"user_id": "anna", "ads": [1000]})
        assert scored.json()["pctr"][0] is not None

    call(make(), scenario)


def test_all_ads_paused_is_an_empty_answer(make: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        await put(client, *({"ad_id": 1000 + i, "paused": True} for i in range(300)))
        answer = await shown(client)
        assert answer["ads"] == []
        assert answer["stages"][0]["note"] == "0 of 300 ads eligible"

    call(make(), scenario)


def test_flags_can_be_looked_at(make: Make) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await look(client))["flags"] == []
        await put(
            client,
            *({"ad_id": 1000 + i, "paused": True} for i in range(5)),
            {"ad_id": "other", "budget_exhausted": True},
        )
        whole = await look(client)
        assert [each["ad_id"] for each in whole["flags"]] == [1000, 1001, 1002, 1003, 1004, "other"]
        assert whole["flags"][0] == {"ad_id": 1000, "paused": True, "budget_exhausted": False, "known": True}
        assert whole["flags"][5] == {"ad_id": "other", "paused": False, "budget_exhausted": True, "known": False}
        assert (whole["paused"], whole["budget_exhausted"], whole["unknown_ads"]) == (5, 0, 1)
        assert whole["next_after"] is None
        assert 0 <= whole["age_s"] < 60
        pages, after = [], cast("str | None", "")
        while after is not None:
            page = await look(client, limit=2, after=after)
            pages.append([each["ad_id"] for each in page["flags"]])
            after = page["next_after"]
        assert pages == [[1000, 1001], [1002, 1003], [1004, "other"], []]
        asked = await look(client, ad_id=["1003", "01004", "1299", "none"])
        assert [(each["ad_id"], each["paused"], each["known"]) for each in asked["flags"]] == [
            (1003, True, True),
            (1004, True, True),
            (1299, False, True),
            ("none", False, False),
        ]
        metrics = (await client.get("/metrics")).text
        assert 'adrank_flagged_ads{flag="paused"} 5.0' in metrics
        assert 'adrank_flagged_ads{flag="unknown"} 1.0' in metrics

    call(make(), scenario)


BAD: list[tuple[Any, str | None, str]] = [
    ({}, "flags", "missing"),
    ({"flags": []}, "flags", "length at least 1"),
    ({"flags": {}}, "flags", "list"),
    ({"flags": [7]}, "flags.0", ""),
    ({"flags": [{"paused": True}]}, "flags.0.ad_id", "missing"),
    ({"flags": [{"ad_id": 1000}]}, "flags.0", "at least one of: paused, budget_exhausted"),
    ({"flags": [{"ad_id": 1000, "paused": None}]}, "flags.0", "at least one of: paused, budget_exhausted"),
    ({"flags": [{"ad_id": 1000, "paused": 1}]}, "flags.0.paused", "bool"),
    ({"flags": [{"ad_id": 1000, "paused": "true"}]}, "flags.0.paused", "bool"),
    ({"flags": [{"ad_id": 1.5, "paused": True}]}, "flags.0.ad_id", "int; or string"),
    ({"flags": [{"ad_id": "", "paused": True}]}, "flags.0.ad_id", "length at least 1"),
    ({"flags": [{"ad_id": 1, "stopped": True}]}, "flags.0.stopped", "one of: ad_id, paused, budget_exhausted"),
    ({"flags": [{"ad_id": 1000, "paused": True}, {"ad_id": "1000", "paused": False}]}, "flags.1.ad_id", "no ad twice"),
    ({"flags": [{"ad_id": i, "paused": True} for i in range(11)]}, "flags", "length at most 10"),
    ({"flags": [{"ad_id": i, "paused": True} for i in range(6)]}, "flags", "at most 5 ads with flags"),
]


@pytest.mark.parametrize(("body", "field", "bound"), BAD)
def test_bad_changes_are_named_and_none_is_taken(make: Make, body: Any, field: str | None, bound: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.put(PATH, json=body)
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert error["field"] == field, error
        assert bound in (error["bound"] or ""), error
        assert (await look(client))["flags"] == []

    call(make(max_flags=10, max_flagged_ads=5), scenario)


@pytest.mark.parametrize(
    ("query", "field", "bound"),
    [
        ("limit=0", "limit", "at least 1"),
        ("limit=1001", "limit", "at most 1000"),
        ("limit=x", "limit", "int"),
        ("limit=1&limit=2", "limit", "int"),
        ("after=" + "x" * 129, "after", "length at most 128"),
        ("ad_id=", "ad_id.0", "length at least 1"),
        ("ad_id=1&limit=2", "ad_id", "ad_id, or after and limit"),
        ("&".join(f"ad_id={i}" for i in range(1001)), "ad_id", "length at most 1000"),
        ("page=2", "page", "one of: ad_id, after, limit"),
    ],
)
def test_bad_queries_are_named(make: Make, query: str, field: str, bound: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{PATH}?{query}")
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert (error["code"], error["field"]) == ("invalid_request", field)
        assert bound in error["bound"]

    call(make(), scenario)


def test_a_change_has_places_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ads can be stopped while the service is overloaded, and changes are limited all the same."""
    monkeypatch.setattr(middleware, "PUTS", 1)

    async def scenario() -> None:
        go_on = asyncio.Event()

        async def slowly(body: bytes) -> Any:
            await go_on.wait()
            yield body

        settings = settings_for(folder, max_in_flight=1, body_timeout_ms=20_000)
        change = json.dumps({"flags": [{"ad_id": 1000, "paused": True}]}).encode()
        async with client_of(create_app(settings)) as client:
            ranking = asyncio.create_task(client.post("/v1/rank", content=slowly(b'{"user_id": "anna"}')))
            await asyncio.sleep(0.05)
            assert (await client.post("/v1/rank", json={"user_id": "anna"})).status_code == 429
            assert (await client.put(PATH, content=change)).status_code == 200
            changing = asyncio.create_task(client.put(PATH, content=slowly(change)))
            await asyncio.sleep(0.05)
            refused = await client.put(PATH, content=change)
            assert refused.status_code == 429
            assert refused.json()["error"]["bound"] == "at most 1 in flight"
            go_on.set()
            assert [each.status_code for each in await asyncio.gather(ranking, changing)] == [200, 200]

    asyncio.run(scenario())


def test_a_store_that_is_down_takes_no_flags_and_the_last_ones_stay(folder: Path, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    settings = settings_for(folder, redis_url=server.url, flags_poll_seconds=0.05, flags_stale_seconds=0.2)

    async def scenario(client: httpx.AsyncClient) -> None:
        await put(client, {"ad_id": 1000, "paused": True})
        server.stop()
        error = (await put(client, {"ad_id": 1001, "paused": True}, status=503))["error"]
        assert error["code"] == "store_unavailable"
        assert error["message"].startswith("the store did not take the flags: store unavailable")
        answer = await shown(client, candidates=[1000, 1001])
        while "ad_flags: stale" not in answer["degraded"]:
            await asyncio.sleep(0.02)
            answer = await shown(client, candidates=[1000, 1001])
        assert ids(answer) == {1001}
        assert answer["excluded_candidates"] == [{"ad_id": 1000, "reason": "paused"}]
        assert 'adrank_degraded_total{what="ad_flags",why="stale"}' in (await client.get("/metrics")).text
        assert (await look(client, ad_id=1000))["flags"][0]["paused"]
        server.start()  # with nothing in it
        while (await shown(client, candidates=[1000, 1001]))["excluded_candidates"]:
            await asyncio.sleep(0.02)

    try:
        call(settings, scenario)
    finally:
        server.stop()


def test_a_service_that_starts_without_redis_says_that_it_knows_no_flags(folder: Path) -> None:
    settings = settings_for(folder, redis_url=f"redis://127.0.0.1:{free_port()}/0")

    async def scenario(client: httpx.AsyncClient) -> None:
        assert "ad_flags: never read" in (await shown(client))["degraded"]

    call(settings, scenario)


def test_a_paused_ad_is_gone_in_another_process_and_after_a_restart(tmp_path: Path, redis_server: RedisServer) -> None:
    """Two services over HTTP, of two bundles, one Redis; the second bundle alone knows ad 1310."""
    folders = [make_world(tmp_path, Recipe(ads=ads, bundle_id=f"with-{ads}")) for ads in (300, 320)]
    shared = ["--redis-url", redis_server.url, "--redis-prefix", "two:", "--flags-poll-seconds", "0.1"]
    one_options, two_options = ([*shared, "--redis-state-prefix", f"state:{name}:"] for name in ("one", "two"))
    own = {"user_id": "anna", "candidates": [1000, 1001, 1310]}

    def excluded(client: httpx.Client) -> set[int]:
        answer = client.post("/v1/rank", json=own).json()
        assert answer["degraded"] == []
        return {each["ad_id"] for each in answer["excluded_candidates"]}

    with served(folders[0], *one_options) as one, httpx.Client(base_url=one.url, timeout=PATIENCE_S) as first:
        with served(folders[1], *two_options) as two, httpx.Client(base_url=two.url, timeout=PATIENCE_S) as second:
            assert excluded(first) == excluded(second) == set()
            body = {"flags": [{"ad_id": 1000, "paused": True}, {"ad_id": 1310, "budget_exhausted": True}]}
            told = first.put(PATH, json=body).json()
            assert (told["changed"], told["unknown_ads"]) == (2, 1)
            assert excluded(first) == {1000}
            until(lambda: excluded(second) == {1000, 1310})
            assert 1000 not in ids(second.post("/v1/rank", json={"user_id": "anna", "k": 20}).json())
            second.put(PATH, json={"flags": [{"ad_id": 1000, "paused": False}, {"ad_id": 1001, "paused": True}]})
            until(lambda: excluded(first) == {1001})
        with served(folders[1], *two_options) as again, httpx.Client(base_url=again.url, timeout=PATIENCE_S) as third:
            assert excluded(third) == {1001, 1310}
            assert third.get(PATH).json()["unknown_ads"] == 0
