"""A real Redis server, and a feed of entries."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.outcomes.feeding import Feed
from tests.service.conftest import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def feed(redis_server: RedisServer) -> Iterator[Feed]:
    made = Feed(redis_server.url)
    yield made
    made.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
