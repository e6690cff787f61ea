"""A copy of the project in which the commands of a page are run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.walk import Walk
from tests.service.conftest import RedisServer


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    redis = RedisServer(tmp_path)
    try:
        with Walk(tmp_path, redis.port) as shell:
            yield shell
    finally:
        redis.stop()
