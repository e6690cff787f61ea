"""The key of callers over HTTP: what it guards, what stays open, and that nothing is read before it was shown."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.errors import SettingsError
from service.loaded import LoadedBundle
from service.settings import read_settings
from tests.service.conftest import call, client_of
from tests.service.world import settings_for

KEY, NEXT, ADMIN, TESTING = "the-key-of-callers", "the-one-after-that", "the-key-of-operators", "the-key-of-testers"
OPEN = {"/healthz", "/readyz", "/metrics"}
ASK = {"user_id": "anna"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_but_the_open_ones_asks_for_a_key(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json")).json()
        seen = set()
        for path, operations in document["paths"].items():
            for method in operations:
                answer = await client.request(method, path, content=b"not even JSON")
                assert (answer.status_code == 401) is (path not in OPEN), (method, path, answer.status_code)
                assert ("security" in operations[method]) is (path not in OPEN)
                seen.add(path)
        assert seen > OPEN | {"/v1/rank", "/v1/score", "/v1/events", "/v1/ads/flags", "/v1/bundles"}
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/v1/there-is-none")).status_code == 401
        assert (await client.get("/v1/there-is-none", headers=bearer(KEY))).status_code == 404

    call(settings_for(folder, api_key=KEY, admin_key=ADMIN), scenario, loaded)


@pytest.mark.parametrize("key", [KEY, NEXT])
def test_either_of_two_keys_is_taken(folder: Path, loaded: LoadedBundle, key: str) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        event = {"events": [{"user_id": 1, "kind": "click", "ad_id": 1000}]}
        for path, body in (("/v1/rank", ASK), ("/v1/score", ASK | {"ads": [1000]}), ("/v1/events", event)):
            assert (await client.post(path, json=body, headers=bearer(key))).status_code == 200
        for path in ("/v1/bundles", "/v1/ads/flags"):
            assert (await client.get(path, headers=bearer(key))).status_code == 200

    call(settings_for(folder, api_key=f"{KEY},{NEXT}"), scenario, loaded)


def test_a_refusal_says_what_is_needed_and_is_counted(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        none = await client.post("/v1/rank", json=ASK)
        wrong = await client.post("/v1/rank", json=ASK, headers=bearer("another-key-of-that-length"))
        assert none.headers["www-authenticate"] == "Bearer"
        assert none.json()["error"]["code"] == "unauthorized"
        assert "api_key as `Authorization: Bearer KEY`; none was given" in none.json()["error"]["message"]
        assert "a wrong one was given" in wrong.json()["error"]["message"]
        assert none.json()["error"]["request_id"] == none.headers["x-request-id"]
        assert KEY not in none.text + wrong.text
        counted = 'adrank_requests_total{route="other",status="401"} 2.0'
        assert counted in (await client.get("/metrics")).text

    call(settings_for(folder, api_key=KEY), scenario, loaded)


def test_nothing_is_read_and_no_place_taken_before_the_key_was_shown(folder: Path, loaded: LoadedBundle) -> None:
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"{}"

    async def scenario() -> None:
        app = create_app(settings_for(folder, api_key=KEY, max_in_flight=1), loaded)
        async with client_of(app) as client:
            stuck = asyncio.Event()

            async def receive() -> dict[str, object]:
                stuck.set()
                await asyncio.sleep(60)
                return {}

            async def send(message: object) -> None: ...

            headers = [(b"authorization", f"Bearer {KEY}".encode())]
            scope = {"type": "http", "method": "POST", "path": "/v1/rank", "headers": headers, "query_string": b""}
            holding = asyncio.create_task(app(scope, receive, send))
            await stuck.wait()
            answers = [await client.post("/v1/rank", content=body(), headers=each) for each in ({}, bearer(NEXT))]
            assert [answer.status_code for answer in answers] == [401, 401]
            assert read == []
            assert (await client.post("/v1/rank", json=ASK, headers=bearer(KEY))).status_code == 429
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)

    asyncio.run(scenario())


def test_each_key_opens_its_own(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert (await client.get("/v1/admin/state", headers=bearer(KEY))).status_code == 401
        assert (await client.get("/v1/admin/state", headers=bearer(ADMIN))).status_code == 200
        assert (await client.post("/v1/rank", json=ASK, headers=bearer(ADMIN))).status_code == 401
        assert (await client.post("/v1/rank", json=ASK, headers=bearer(TESTING))).status_code == 200
        assert (await client.get("/v1/bundles", headers=bearer(TESTING))).status_code == 401
        named = {"X-Adrank-Arm": "trial=new"}
        assert (await client.post("/v1/rank", json=ASK, headers=bearer(KEY) | named)).status_code == 401
        told = await client.post("/v1/rank", json=ASK, headers=bearer(TESTING) | named)
        assert told.status_code == 422, "there is no such experiment"

    call(settings_for(folder, api_key=KEY, admin_key=ADMIN, testing_key=TESTING), scenario, loaded)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "host is '0.0.0.0', .* so it needs api_key .the variable ADRANK_API_KEY"),
        ({"admin_key": ADMIN}, "needs api_key"),
        ({"api_key": KEY}, "needs admin_key .the variable ADRANK_ADMIN_KEY"),
        ({"api_key": KEY, "admin_key": f"{ADMIN},{KEY}"}, "api_key and admin_key have a key in common"),
        ({"api_key": "short", "admin_key": ADMIN}, "api_key: Value error, key 1 has 5 characters, from 16 to 1024"),
    ],
)
def test_where_others_reach_the_service_it_does_not_start_without_keys(
    folder: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        read_settings(bundle=folder, host="0.0.0.0", **given)
    assert KEY not in str(refused.value)


def test_with_both_keys_it_may_listen_anywhere(folder: Path) -> None:
    settings = read_settings(bundle=folder, host="0.0.0.0", api_key=KEY, admin_key=ADMIN)
    assert settings.draining_s == 5
    assert read_settings(bundle=folder).draining_s == 0
    assert KEY not in repr(settings)
