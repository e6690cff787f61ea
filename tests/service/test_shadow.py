"""The shadow: what it finds, that no caller notices it, and that it is the first to go."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from bundle.folder import open_bundle
from service import shadow as module
from service.app import create_app
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.plan import Plan
from service.runner import InTurns
from service.settings import Settings
from tests.service.conftest import client_of
from tests.service.plans import experiment, plan_of_one, planned, put_live
from tests.service.test_deadline import slow
from tests.service.world import Recipe, make_world, settings_for

T = TypeVar("T")
CONTEXT: dict[str, object] = {"scene": "feed", "hour": 12}
ASK: dict[str, Any] = {"user_id": "anna", "context": CONTEXT, "k": 10}
ALL = {"bundle": "b2", "share": 1.0}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine drops nothing."""
    monkeypatch.setattr(module, "OLDEST_S", 60.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """b2 shows ads from fewer candidates, and knows fewer ads."""
    root = tmp_path_factory.mktemp("shadow")
    recipes = [Recipe(bundle_id="b1"), Recipe(bundle_id="b2", ads=250), Recipe(bundle_id="b3", filters=())]
    return [make_world(root, recipe) for recipe in recipes]


@pytest.fixture
def bundles(folders: list[Path]) -> list[LoadedBundle]:
    return [load_bundle(folder, settings_for(folder)) for folder in folders]


@pytest.fixture
def settings(folders: list[Path]) -> Settings:
    return settings_for(folders[0])


async def seen(client: httpx.AsyncClient, requests: int) -> Any:
    """What /v1/bundles says of the shadow once it has dealt with so many requests."""
    for _ in range(1000):
        found = (await client.get("/v1/bundles")).json()["shadow"]
        if sum(found[name] for name in ("ranked", "dropped", "refused", "failed")) >= requests:
            return found
        await asyncio.sleep(0.005)
    raise AssertionError(f"the shadow dealt with {found}, not {requests}")


def run(settings: Settings, plan: Plan, scenario: Callable[[httpx.AsyncClient], Any]) -> Any:
    async def go() -> Any:
        app = create_app(settings, plan.control)
        async with client_of(app) as client:
            await put_live(app, plan)
            return await scenario(client)

    return asyncio.run(go())


@pytest.mark.parametrize("threads", [0, 1])
def test_it_is_compared_with_what_was_shown(
    folders: list[Path], settings: Settings, bundles: list[LoadedBundle], threads: int
) -> None:
    async def scenario(client: httpx.AsyncClient) -> Any:
        shown = (await client.post("/v1/rank", json=ASK)).json()
        return shown, await seen(client, 1), (await client.get("/metrics")).text

    settings = settings.model_copy(update={"cascade_threads": threads})
    shown, found, metrics = run(settings, planned(bundles, shadow=ALL), scenario)
    assert shown["bundle_id"] == "b1"
    assert (found["bundle_id"], found["share"], found["ranked"], found["dropped"]) == ("b2", 1.0, 1, 0)

    async def alone(client: httpx.AsyncClient) -> Any:
        return (await client.post("/v1/rank", json=ASK)).json()

    other = run(settings, plan_of_one(bundles[1]), alone)
    ids = [ad["ad_id"] for ad in shown["ads"]]
    common = len(set(ids) & {ad["ad_id"] for ad in other["ads"]}) / 10
    assert found["overlap"] == pytest.approx(common, abs=1e-4)
    known = open_bundle(folders[1]).ads.index
    assert any(known.id_of(each) == 1 for each in ids) or common < 1, "the bundles differ"
    assert -1 <= found["rank_correlation"] <= 1
    assert found["psi"] >= 0
    assert min(found["ms"], found["live_ms"]) > 0
    assert 'adrank_shadow_requests_total{outcome="ranked"} 1.0' in metrics
    assert "adrank_shadow_seconds_count 1.0" in metrics
    assert f"adrank_shadow_overlap_sum {common}" in metrics


def test_a_bundle_that_is_its_own_shadow_agrees_with_itself(settings: Settings, bundles: list[LoadedBundle]) -> None:
    async def scenario(client: httpx.AsyncClient) -> Any:
        for i in range(5):
            await client.post("/v1/rank", json=ASK | {"user_id": f"u{i}"})
            found = await seen(client, i + 1)
        return found

    found = run(settings, planned(bundles, shadow=ALL | {"bundle": "b1"}), scenario)
    assert (found["ranked"], found["overlap"], found["rank_correlation"], found["psi"]) == (5, 1.0, 1.0, 0.0)


def test_answers_are_those_without_a_shadow(settings: Settings, bundles: list[LoadedBundle]) -> None:
    """To the bit, and nothing that the shadow does is counted as served."""

    async def scenario(client: httpx.AsyncClient) -> Any:
        answers = []
        for i in range(6):
            answer = (await client.post("/v1/rank", json=ASK | {"user_id": ["anna", "bert"][i % 2]})).json()
            answers.append([(ad["ad_id"], ad["pctr"]) for ad in answer["ads"]])
            await asyncio.sleep(0.02)
        metrics = (await client.get("/metrics")).text.splitlines()
        counted = [line for line in metrics if "shadow" not in line and ("rung_total" in line or "_count{" in line)]
        return answers, counted

    with_it = run(settings, planned(bundles, shadow=ALL), scenario)
    assert with_it == run(settings, planned(bundles), scenario)


class Noting(InTurns):
    """Writes down when the shadow ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []

    async def spare(self, work: Callable[[], None]) -> bool:
        def noted() -> None:
            self.happened.append("shadow")
            work()

        return await super().spare(noted)


def test_it_ranks_after_the_answer_was_sent(
    settings: Settings, bundles: list[LoadedBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = Noting()
    monkeypatch.setattr("service.app.InTurns", lambda: runner)

    async def go() -> None:
        app = create_app(settings, bundles[0])

        async def noting(scope: Any, receive: Any, send: Any) -> None:
            async def noted(message: Any) -> None:
                await send(message)
                if scope["path"] == "/v1/rank" and message["type"] == "http.response.body":
                    runner.happened.append("answered")

            await app(scope, receive, noted)

        async with client_of(app) as client:
            await put_live(app, planned(bundles, shadow=ALL))
            async with httpx.AsyncClient(transport=httpx.ASGITransport(noting), base_url="http://test") as caller:
                for i in range(5):
                    await caller.post("/v1/rank", json=ASK)
                    await seen(client, i + 1)

    asyncio.run(go())
    assert runner.happened == ["answered", "shadow"] * 5


@pytest.mark.parametrize(
    ("plan", "body"),
    [
        ({"shadow": ALL | {"share": 0.0}}, {}),
        ({"shadow": ALL}, {"candidates": [5]}),
        ({"shadow": ALL, "trial": True}, {}),
    ],
    ids=["a share of 0", "no ad was shown", "another arm"],
)
def test_what_says_nothing_is_left_out(
    settings: Settings, bundles: list[LoadedBundle], plan: dict[str, Any], body: dict[str, Any]
) -> None:
    """Arms are no measure for the shadow: what it would replace is the control."""
    trial = [experiment("trial", overrides={"prerank_keep": 10})] if plan.pop("trial", False) else []

    async def scenario(client: httpx.AsyncClient) -> Any:
        for _ in range(3):
            await client.post("/v1/rank", json=ASK | body)
            await client.post("/v1/score", json={"user_id": "anna", "ads": [1000]})
        await asyncio.sleep(0.05)
        return (await client.get("/v1/bundles")).json()["shadow"]

    found = run(settings, planned(bundles, *trial, **plan), scenario)
    assert found is None or [found[name] for name in ("ranked", "dropped", "refused", "failed")] == [0] * 4


def test_a_degraded_answer_is_no_measure(settings: Settings, bundles: list[LoadedBundle]) -> None:
    slow(bundles[0], "finerank")

    async def scenario(client: httpx.AsyncClient) -> Any:
        assert (await client.post("/v1/rank", json=ASK)).json()["degraded"] == ["finerank: deadline"]
        await asyncio.sleep(0.05)
        return (await client.get("/v1/bundles")).json()["shadow"]

    assert run(settings, planned(bundles, shadow=ALL), scenario)["ranked"] == 0


def test_requests_that_its_bundle_does_not_take_are_refused(settings: Settings, bundles: list[LoadedBundle]) -> None:
    async def scenario(client: httpx.AsyncClient) -> Any:
        body = ASK | {"filters": {"category": {"none_of": ["food"]}}}
        assert (await client.post("/v1/rank", json=body)).status_code == 200
        await client.post("/v1/rank", json=ASK)
        return await seen(client, 2)

    found = run(settings, planned(bundles, shadow=ALL | {"bundle": "b3"}), scenario)
    assert (found["refused"], found["ranked"], found["failed"]) == (1, 1, 0)


class Busy(InTurns):
    """Has no spare time until it is told."""

    spare_now = False

    async def spare(self, work: Callable[[], None]) -> bool:
        return self.spare_now and await super().spare(work)


def test_without_spare_time_it_is_dropped_and_counted(
    settings: Settings, bundles: list[LoadedBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four wait, the others are dropped at once; answers do not wait. Then there is time for those that waited."""
    busy = Busy()
    monkeypatch.setattr("service.app.InTurns", lambda: busy)

    async def scenario(client: httpx.AsyncClient) -> Any:
        for _ in range(10):
            assert (await client.post("/v1/rank", json=ASK)).status_code == 200
        full = await seen(client, 6)
        busy.spare_now = True
        return full, await seen(client, 10)

    full, then = run(settings, planned(bundles, shadow=ALL), scenario)
    assert (full["ranked"], full["dropped"]) == (0, 6)
    assert (then["ranked"], then["dropped"]) == (4, 6)


def test_who_waited_too_long_is_dropped(
    settings: Settings, bundles: list[LoadedBundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.app.InTurns", Busy)
    monkeypatch.setattr(module, "OLDEST_S", 0.0)

    async def scenario(client: httpx.AsyncClient) -> Any:
        for i in range(3):
            await client.post("/v1/rank", json=ASK)
            found = await seen(client, i + 1)
        return found

    found = run(settings, planned(bundles, shadow=ALL), scenario)
    assert (found["ranked"], found["dropped"]) == (0, 3)


def test_one_that_fails_harms_nobody(
    settings: Settings, bundles: list[LoadedBundle], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        """A graph that cannot run."""

        def run(self, values: object) -> dict[str, Any]:
            raise RuntimeError("no graph")

    plan = planned(bundles, shadow=ALL)
    assert plan.shadow is not None
    object.__setattr__(plan.shadow.view, "query", Broken())

    async def scenario(client: httpx.AsyncClient) -> Any:
        for i in range(2):
            assert (await client.post("/v1/rank", json=ASK)).status_code == 200
            found = await seen(client, i + 1)
        return found

    assert run(settings, plan, scenario)["failed"] == 2
    assert "the shadow b2: unexpected error" in caplog.text
    assert "no graph" in caplog.text


def test_another_shadow_begins_anew(settings: Settings, bundles: list[LoadedBundle]) -> None:
    async def go() -> list[Any]:
        app = create_app(settings, bundles[0])
        async with client_of(app) as client:
            found = []
            for name in ("b2", "b3"):
                await put_live(app, planned(bundles, shadow=ALL | {"bundle": name}))
                before = (await client.get("/v1/bundles")).json()["shadow"]
                await client.post("/v1/rank", json=ASK)
                found.append((name, before["ranked"], before["overlap"], (await seen(client, 1))["ranked"]))
            return found

    assert asyncio.run(go()) == [("b2", 0, None, 1), ("b3", 0, None, 1)]


def test_a_tenth_is_about_a_tenth(settings: Settings, bundles: list[LoadedBundle]) -> None:
    async def scenario(client: httpx.AsyncClient) -> int:
        for i in range(200):
            await client.post("/v1/rank", json=ASK | {"k": 1})
            if i % 20 == 0:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        found = (await client.get("/v1/bundles")).json()["shadow"]
        return int(found["ranked"] + found["dropped"])

    assert 5 <= run(settings, planned(bundles, shadow=ALL | {"share": 0.1}), scenario) <= 45
