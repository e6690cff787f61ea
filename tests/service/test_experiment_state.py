"""Experiments by way of the desired state: from the store to the answers, and one that the bundles cannot serve."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from control.state import Change, Desired
from service.api import Services
from service.app import create_app
from tests.patience import PATIENCE_S
from tests.service.conftest import client_of
from tests.service.plans import experiment
from tests.service.world import Recipe, make_world, settings_for

ASK: dict[str, Any] = {"user_id": "anna", "context": {"scene": "feed"}}
Put = Callable[..., Awaitable[None]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """b1 with a ladder, beside it b2 without."""
    root = tmp_path_factory.mktemp("states")
    make_world(root, Recipe(bundle_id="b2"))
    return make_world(root, Recipe(bundle_id="b1", rungs=("light",)))


def run(folder: Path, scenario: Callable[[httpx.AsyncClient, Put], Awaitable[None]]) -> None:
    """`scenario` gets a client, and what puts the next version of the state into the store."""

    async def go() -> None:
        app = create_app(settings_for(folder, state_poll_seconds=0.05))
        async with client_of(app) as client:
            follower = (services := app.state.services).follower
            assert isinstance(services, Services)

            async def put(*experiments: dict[str, Any], **more: Any) -> None:
                before = follower.known.wanted.version
                state = {"version": before + 1, "control": {"bundle": "b1"}, "experiments": experiments} | more
                change = Change(
                    at=time.time(), who="anna", why="to see", action="replace", before=before, after=before + 1
                )
                await follower.store.change(Desired.model_validate(state), change)

            await scenario(client, put)

    asyncio.run(go())


async def until(client: httpx.AsyncClient, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The answer to ASK once it is so."""
    end = time.monotonic() + PATIENCE_S
    while True:
        answer: dict[str, Any] = (await client.post("/v1/rank", json=ASK)).json()
        if what(answer):
            return answer
        assert time.monotonic() < end, answer
        await asyncio.sleep(0.02)


def test_an_experiment_is_served_stopped_and_shadowed(folder: Path) -> None:
    async def scenario(client: httpx.AsyncClient, put: Put) -> None:
        assert (await until(client, lambda answer: answer["version"] == 1))["arms"] == {}
        await put(experiment("trial", overrides={"bundle": "b2"}), shadow={"bundle": "b2", "share": 1.0})
        answer = await until(client, lambda answer: answer["version"] == 2)
        assert (answer["arms"], answer["bundle_id"]) == ({"trial": "new"}, "b2")
        described = (await client.get("/v1/bundles")).json()
        assert [each["serves"] for each in described["bundles"]] == [["control"], ["trial:new", "shadow"]]
        await put(experiment("trial", overrides={"bundle": "b2"}, stopped=True))
        answer = await until(client, lambda answer: answer["version"] == 3)
        assert (answer["arms"], answer["bundle_id"]) == ({}, "b1")

    run(folder, scenario)


def test_an_experiment_that_the_bundles_cannot_serve_is_refused_and_said(folder: Path) -> None:
    """The bundle b2 is there and proved, but has no rung `light`. The version before goes on, a later one is served."""

    async def scenario(client: httpx.AsyncClient, put: Put) -> None:
        await until(client, lambda answer: answer["version"] == 1)
        await put(experiment("trial", overrides={"bundle": "b2", "rung": "light"}))
        end = time.monotonic() + PATIENCE_S
        refused: list[dict[str, Any]] = []
        while not refused:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)
            (process,) = (await client.get("/v1/bundles")).json()["state"]["processes"]
            refused = [each for each in process["bundles"] if each["status"] == "refused"]
        assert refused[0]["bundle_id"] == "b2"
        said = "arm trial:new: rung is 'light', of bundle 'b2' these are loaded: auto, off, full"
        assert refused[0]["error"] == said
        answer = (await client.post("/v1/rank", json=ASK)).json()
        assert (answer["version"], answer["arms"], answer["bundle_id"]) == (1, {}, "b1")
        await put(experiment("trial", overrides={"rung": "light"}))
        answer = await until(client, lambda answer: answer["version"] == 3)
        assert (answer["arms"], answer["rung"]) == ({"trial": "new"}, "light")

    run(folder, scenario)
