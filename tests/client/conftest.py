"""A real service in a process of its own, and each of the two clients."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from loadtest.served import Served, serve
from tests.client.servers import blocking, concurrent
from tests.service.world import make_world

PATIENT = ["--default-deadline-ms", "8000", "--features-timeout-ms", "1500", "--redis-timeout-ms", "1000"]
Open = Callable[..., AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(make_world(tmp_path_factory.mktemp("bundles")), PATIENT) as served:
        yield served


@pytest.fixture(params=[blocking, concurrent], ids=["blocking", "concurrent"])
def client_at(request: pytest.FixtureRequest) -> Open:
    """Opens a client: of an address, and options of both clients."""
    opened: Open = request.param
    return opened
