"""Request ids, places in flight, body sizes, and errors nobody expected."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.app import create_app
from service.errors import StoreError
from service.features import EmbeddedStore
from service.loaded import LoadedBundle
from tests.service.conftest import call, client_of
from tests.service.world import settings_for

ASK = {"user_id": "anna"}


class WaitingStore(EmbeddedStore):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10, 10_000)
        self.go_on = asyncio.Event()
        self.waiting = 0

    async def get(self, user_id: str) -> bytes | None:
        self.waiting += 1
        await self.go_on.wait()
        return None


class BrokenStore(EmbeddedStore):
    """Fails in a way nobody thought of."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10, 10_000)

    async def get(self, user_id: str) -> bytes | None:
        raise ZeroDivisionError("secret detail")


class FailingStore(EmbeddedStore):
    """Fails as stores do."""

    def __init__(self) -> None:
        super().__init__(lambda: None, 10, 10, 10_000)

    async def get(self, user_id: str) -> bytes | None:
        raise StoreError("store unavailable")


def test_too_many_in_flight_are_refused_at_once_before_parsing(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        store = WaitingStore()
        settings = settings_for(folder, max_in_flight=2, features_timeout_ms=7000)
        async with client_of(create_app(settings, loaded, store)) as client:
            accepted = [asyncio.create_task(client.post("/v1/rank", json=ASK | {"user_id": i})) for i in range(2)]
            while store.waiting < 2:
                await asyncio.sleep(0.001)
            for body in (json.dumps(ASK).encode(), b"not even JSON"):
                refused = await client.post("/v1/rank", content=body)
                assert refused.status_code == 429
                assert refused.headers["retry-after"] == "1"
                assert refused.json()["error"]["code"] == "overloaded"
                assert refused.json()["error"]["bound"] == "at most 2 in flight"
            assert (await client.get("/healthz")).status_code == 200
            metrics = (await client.get("/metrics")).text
            assert "adrank_in_flight_requests 2.0" in metrics
            assert "adrank_overload_refusals_total 2.0" in metrics
            store.go_on.set()
            assert [answer.status_code for answer in await asyncio.gather(*accepted)] == [200, 200]
            assert (await client.post("/v1/rank", json=ASK)).status_code == 200
            assert "adrank_in_flight_requests 0.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())


def test_a_place_is_given_back_after_any_error(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        for body in (b"{", b"{}", b"x" * 5000):
            for _ in range(3):
                assert (await client.post("/v1/rank", content=body)).status_code in (400, 413, 422)
        assert (await client.post("/v1/rank", json=ASK)).status_code == 200

    call(settings_for(folder, max_in_flight=1, max_body_bytes=2000), scenario, loaded)


def test_large_bodies_are_refused_announced_or_streamed(folder: Path, loaded: LoadedBundle) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    async def scenario(client: httpx.AsyncClient) -> None:
        for content in (b" " * 3000, pieces()):
            answer = await client.post("/v1/rank", content=content)
            assert answer.status_code == 413
            error = answer.json()["error"]
            assert error["code"] == "body_too_large"
            assert error["bound"] == "at most 2000 bytes"
        fits = json.dumps(ASK).encode().ljust(2000)
        assert (await client.post("/v1/rank", content=fits)).status_code == 200

    call(settings_for(folder, max_body_bytes=2000), scenario, loaded)


def test_a_body_that_does_not_come_gives_its_place_back(folder: Path, loaded: LoadedBundle) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/rank", content=never())
        assert answer.status_code == 408
        assert answer.json()["error"]["message"] == "the body did not arrive within 0.05 s"
        assert (await client.post("/v1/rank", json=ASK)).status_code == 200

    call(settings_for(folder, body_timeout_ms=50, max_in_flight=1), scenario, loaded)


def test_a_caller_that_leaves_is_no_error(folder: Path, loaded: LoadedBundle, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        app = create_app(settings_for(folder), loaded)
        async with client_of(app) as client:

            async def gone() -> dict[str, str]:
                return {"type": "http.disconnect"}

            async def send(message: object) -> None:
                raise AssertionError(f"nobody is there for {message}")

            scope = {"type": "http", "method": "POST", "path": "/v1/rank", "headers": [], "query_string": b""}
            await app(scope, gone, send)
            assert caplog.text == ""
            assert 'status="499"} 1.0' in (await client.get("/metrics")).text

    asyncio.run(scenario())


@pytest.mark.parametrize(("given", "kept"), [("abc-123", True), ("x" * 129, False), ("a b", False), ("<b>", False)])
def test_a_sane_request_id_is_kept(folder: Path, loaded: LoadedBundle, given: str, kept: bool) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/rank", json=ASK, headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is kept
        assert answer.json()["request_id"] == answer.headers["x-request-id"]

    call(settings_for(folder), scenario, loaded)


def test_an_unexpected_error_shows_only_the_request_id(
    folder: Path, loaded: LoadedBundle, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        with caplog.at_level(logging.ERROR):
            answer = await client.post("/v1/rank", json=ASK, headers={"x-request-id": "find-me"})
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == "find-me"
        assert "secret" not in answer.text
        assert answer.json()["error"]["request_id"] == "find-me"
        assert "find-me" in caplog.text
        assert "secret detail" in caplog.text
        metrics = (await client.get("/metrics")).text
        assert 'adrank_requests_total{route="/v1/rank",status="500"} 1.0' in metrics

    call(settings_for(folder), scenario, loaded, BrokenStore())


def test_a_failing_store_is_an_answer_with_defaults(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = (await client.post("/v1/rank", json=ASK)).json()
        assert answer["degraded"] == ["user_features: store unavailable"]
        assert len(answer["ads"]) == 10

    call(settings_for(folder), scenario, loaded, FailingStore())


def test_not_ready_until_a_bundle_is_loaded(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        app = create_app(settings_for(folder), loaded)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/healthz")).status_code == 200
            for method, path in (
                ("GET", "/readyz"),
                ("GET", "/v1/bundles"),
                ("POST", "/v1/rank"),
                ("POST", "/v1/events"),
            ):
                body = ASK if path == "/v1/rank" else {"events": [{"user_id": 1, "kind": "click", "ad_id": 1}]}
                answer = await client.request(method, path, json=body)
                assert answer.status_code == 503
                assert answer.json()["error"]["code"] == "not_ready"
        async with client_of(create_app(settings_for(folder), loaded)) as client:
            ready = await client.get("/readyz")
            assert ready.json() == {"status": "ready", "bundle_id": "world"}

    asyncio.run(scenario())


def test_the_same_times_are_in_answer_header_and_metrics(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/rank", json=ASK)
        header = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
        stages = {stage["name"]: stage["ms"] for stage in answer.json()["stages"]}
        assert list(header) == ["features", "queue", "eligibility", *stages, "total"]
        assert {name: float(header[name]) for name in stages} == stages
        assert float(header["features"]) == answer.json()["features_ms"]
        text = (await client.get("/metrics")).text
        for name in (*stages, "features", "queue", "eligibility"):
            assert f'adrank_stage_seconds_count{{stage="{name}"}} 1.0' in text
        assert 'adrank_request_seconds_count{route="/v1/rank"} 1.0' in text
        assert 'adrank_users_total{user="known"} 1.0' in text

    call(settings_for(folder), scenario, loaded)


def test_a_caller_that_does_not_read_gives_its_place_back(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario() -> None:
        app = create_app(settings_for(folder, max_in_flight=1), loaded)
        async with client_of(app) as client:
            stuck = asyncio.Event()

            async def receive() -> dict[str, object]:
                return {"type": "http.request", "body": json.dumps(ASK).encode(), "more_body": False}

            async def never_read(message: object) -> None:
                stuck.set()
                await asyncio.sleep(60)

            scope = {"type": "http", "method": "POST", "path": "/v1/rank", "headers": [], "query_string": b""}
            task = asyncio.create_task(app(scope, receive, never_read))
            await stuck.wait()
            assert "adrank_in_flight_requests 0.0" in (await client.get("/metrics")).text
            for _ in range(2):
                assert (await client.post("/v1/rank", json=ASK)).status_code == 200
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert "adrank_in_flight_requests 0.0" in (await client.get("/metrics")).text

    asyncio.run(scenario())


def test_a_slash_too_many_is_an_unknown_route(folder: Path, loaded: LoadedBundle) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/v1/rank/", json=ASK)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "unknown_route"

    call(settings_for(folder), scenario, loaded)
