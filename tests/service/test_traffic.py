"""How many requests are in flight, as other threads see it."""

import asyncio

from starlette.types import Message, Receive, Scope, Send

from service.metrics import Metrics
from service.middleware import InFlightMiddleware
from service.traffic import Traffic


def test_requests_are_counted_from_their_beginning_to_their_answer() -> None:
    traffic = Traffic()
    seen: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(traffic.in_flight)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        seen.append(traffic.in_flight)

    async def scenario() -> None:
        counting = InFlightMiddleware(app, limit=2, metrics=Metrics(), traffic=traffic)
        for method in ("POST", "GET"):  # health and metrics count for nothing
            await counting({"type": "http", "method": method, "path": "/v1/rank"}, receive, send)

    asyncio.run(scenario())
    assert seen == [1, 0, 0, 0]
