"""/v1/events: what users do, seen by the next request; the same with both stores."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bundle.folder import Bundle
from bundle.record import Event, UserRecord
from service.app import create_app
from service.errors import StoreError
from service.features import Appended, EmbeddedStore
from service.settings import Settings
from tests.service.conftest import RedisServer, client_of
from tests.service.world import common_of, expected_pctr, settings_for

CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}
Make = Callable[..., Settings]


@pytest.fixture(params=["embedded", "redis"])
def make(request: pytest.FixtureRequest, folder: Path) -> Make:
    """Settings with either store."""
    if request.param == "embedded":
        return lambda **changed: settings_for(folder, **changed)
    server: RedisServer = request.getfixturevalue("redis_server")
    return lambda **changed: settings_for(folder, redis_url=server.url, redis_prefix=f"{request.node.name}:", **changed)


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> Any:
    answer = await client.post("/v1/events", json={"events": list(events)})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def scores(client: httpx.AsyncClient, user_id: int | str, ads: list[int]) -> list[float]:
    body = {"user_id": user_id, "context": CONTEXT, "ads": ads}
    found: list[float] = (await client.post("/v1/score", json=body)).json()["pctr"]
    return found


def test_the_next_request_sees_clicks_and_searches(make: Make, bundle: Bundle) -> None:
    ads = list(range(1000, 1020))
    rows = np.array([bundle.ads.index.id_of(ad) for ad in ads])

    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            before = await scores(client, 77, ads)
            np.testing.assert_allclose(
                before, expected_pctr(bundle, common_of(bundle, UserRecord(), CONTEXT), rows), atol=1e-6
            )
            told = await send(
                client,
                {"user_id": 77, "kind": "click", "ad_id": 1003},
                {"user_id": "77", "kind": "click", "ad_id": "1004", "time_ms": 5},
                {"user_id": 77, "kind": "search", "values": ["food"]},
            )
            assert (told["accepted"], told["ignored"], told["unknown_ads"]) == (3, 0, 0)
            events = (Event("click", 0, (1003,)), Event("click", 0, (1004,)), Event("search", 0, ("food",)))
            after = expected_pctr(bundle, common_of(bundle, UserRecord({}, events), CONTEXT), rows)
            np.testing.assert_allclose(await scores(client, 77, ads), after, atol=1e-6)
            assert np.abs(after - before).max() > 0.03
            rank = await client.post("/v1/rank", json={"user_id": 77})
            assert rank.json()["user"] == "known"

    asyncio.run(scenario())


def test_kinds_nothing_reads_are_ignored_and_unknown_ads_counted(make: Make) -> None:
    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            told = await send(
                client,
                {"user_id": 1, "kind": "impression", "ad_id": 1003},
                {"user_id": 1, "kind": "impression", "values": ["anything", 3]},
                {"user_id": 1, "kind": "click", "ad_id": 999_999},
            )
            assert (told["accepted"], told["ignored"], told["unknown_ads"]) == (1, 2, 1)
            metrics = (await client.get("/metrics")).text
            assert 'adrank_events_total{outcome="ignored"} 2.0' in metrics
            assert all(score is not None for score in await scores(client, 1, [1003]))

    asyncio.run(scenario())


def test_a_wrong_event_stores_none_of_its_batch(make: Make) -> None:
    async def scenario() -> None:
        async with client_of(create_app(make())) as client:
            events = [
                {"user_id": "zoe", "kind": "click", "ad_id": 1003},
                {"user_id": "zoe", "kind": "buy", "ad_id": 1003},
            ]
            answer = await client.post("/v1/events", json={"events": events})
            assert answer.status_code == 422
            error = answer.json()["error"]
            assert error["field"] == "events.1.kind"
            assert error["bound"] == "one of: click, impression, search"
            assert (await client.post("/v1/rank", json={"user_id": "zoe"})).json()["user"] == "unknown"

    asyncio.run(scenario())


def test_only_the_last_events_are_kept(make: Make, bundle: Bundle) -> None:
    async def scenario() -> None:
        async with client_of(create_app(make(history_limit=20))) as client:
            for _ in range(3):
                await send(client, *({"user_id": "max", "kind": "click", "ad_id": 1001} for _ in range(10)))
            await send(client, *({"user_id": "max", "kind": "click", "ad_id": 1002} for _ in range(20)))
            record = UserRecord({}, (Event("click", 0, (1002,)),) * 20)
            rows = np.array([bundle.ads.index.id_of(ad) for ad in (1001, 1002)])
            expected = expected_pctr(bundle, common_of(bundle, record, CONTEXT), rows)
            np.testing.assert_allclose(await scores(client, "max", [1001, 1002]), expected, atol=1e-6)

    asyncio.run(scenario())


class LateStore(EmbeddedStore):
    """Answers no write in time; counts one record started anew when it is told to work."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10)
        self.late = True

    async def append(self, events: Mapping[str, bytes], line: bytes | None = None) -> Appended:
        if self.late:
            raise StoreError("timeout")
        return Appended(anew=1)


def test_a_late_store_is_unknown_and_a_record_started_anew_is_counted(folder: Path) -> None:
    async def scenario() -> None:
        store = LateStore()
        body = {"events": [{"user_id": 1, "kind": "click", "ad_id": 1000}]}
        async with client_of(create_app(settings_for(folder), store=store)) as client:
            late = await client.post("/v1/events", json=body)
            assert late.status_code == 503
            assert "it is not known whether it took the events" in late.json()["error"]["message"]
            store.late = False
            assert (await client.post("/v1/events", json=body)).status_code == 200
            assert "adrank_records_started_anew_total 1.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())
