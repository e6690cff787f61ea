"""An application that was stopped holds nothing: not in tests either, which make hundreds in one process."""

import asyncio
import gc
import weakref

from service.app import create_app
from service.settings import Settings
from tests.service.conftest import client_of


def test_its_bundle_is_freed(settings: Settings) -> None:
    async def scenario() -> weakref.ref[object]:
        app = create_app(settings)
        async with client_of(app) as client:
            assert (await client.get("/readyz")).status_code == 200
            return weakref.ref(app.state.services.registry.live.query._session)

    session = asyncio.run(scenario())
    gc.collect()
    assert session() is None
