"""Plans of several bundles, and applications that serve them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from fastapi import FastAPI

from control.state import Desired, Overrides
from service.api import Services
from service.app import create_app
from service.features import FeatureStore
from service.loaded import LoadedBundle
from service.plan import Plan
from service.settings import Settings
from tests.service.conftest import client_of

KEY = "a key for testing"


def experiment(name: str, weight: float = 1.0, arm: str = "new", **more: Any) -> dict[str, Any]:
    """One arm; `overrides` and all else as given."""
    overrides = more.pop("overrides", {})
    arms = [{"name": arm, "weight": weight, "overrides": overrides}]
    return {"name": name, "salt": f"{name}-1", "arms": arms, **more}


def desired(*experiments: dict[str, Any], control: dict[str, Any] | None = None, **more: Any) -> Desired:
    """With the bundle b1 as control."""
    control = {"bundle": "b1"} | (control or {})
    return Desired.model_validate({"version": 7, "control": control, "experiments": experiments, **more})


def planned(bundles: list[LoadedBundle], *experiments: dict[str, Any], **more: Any) -> Plan:
    """The plan of `desired`."""
    return Plan(desired(*experiments, **more), {each.id: each for each in bundles})


def plan_of_one(loaded: LoadedBundle) -> Plan:
    """Everybody is served from `loaded`."""
    return Plan(Desired(version=1, control=Overrides(bundle=loaded.id)), {loaded.id: loaded})


async def put_live(app: FastAPI, plan: Plan) -> None:
    """Have a running application serve the plan, whatever the desired state says."""
    services: Services = app.state.services
    await services.follower.stop()
    services.registry.publish(plan)


def serve(
    settings: Settings,
    plan: Plan,
    scenario: Callable[[httpx.AsyncClient], Awaitable[Any]],
    store: FeatureStore | None = None,
) -> Any:
    """Run `scenario` with a client of an application that serves `plan`."""

    async def run() -> Any:
        app = create_app(settings, plan.control, store)
        async with client_of(app) as client:
            await put_live(app, plan)
            return await scenario(client)

    return asyncio.run(run())


def ask(settings: Settings, plan: Plan, path: str, body: Any, headers: Any = None, status: int = 200) -> Any:
    """The answer to one POST."""

    async def scenario(client: httpx.AsyncClient) -> Any:
        answer = await client.post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    return serve(settings, plan, scenario)


def forcing(**arms: str) -> dict[str, str]:
    """The headers that force these arms."""
    value = ",".join(f"{experiment}={arm}" for experiment, arm in arms.items())
    return {"X-Adrank-Arm": value, "Authorization": f"Bearer {KEY}"}
