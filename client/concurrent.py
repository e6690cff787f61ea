"""The client for asyncio: as many calls at the same time as there are tasks, over one pool of connections."""

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx

from client.calls import BUNDLES_CALL, A, Call, Lost, Received, events_call, rank_call, score_call
from client.connection import ONE, Lanes, lost, options, received, trust
from client.course import Course, RetryBudget, Sending, Wait
from client.schemas import (
    BundlesResponse,
    EventIn,
    EventsResponse,
    Filter,
    Given,
    Id,
    RankResponse,
    ScoreResponse,
    Value,
)


class AsyncClient:
    """A service at `url`, as Client. Belongs to one event loop. Every method raises ClientError."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        deadline_ms: float | None = None,
        connections: int = 100,
        headers: Mapping[str, str] | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """As Client."""
        self.url = url.rstrip("/")
        self._deadline_ms = deadline_ms
        self._budget = RetryBudget()
        said, context = options(self.url, key, headers), trust(self.url, verify)
        self._lanes = Lanes(lambda: httpx.AsyncClient(**said, limits=ONE, verify=context, timeout=None), connections)
        self._places = asyncio.Semaphore(connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes.made:
            await lane.aclose()

    async def rank(
        self,
        user_id: Id,
        *,
        context: Mapping[str, Value] | None = None,
        k: int | None = None,
        candidates: Sequence[Id] | None = None,
        filters: Mapping[str, Filter] | None = None,
        user: Given | None = None,
        deadline_ms: float | None = None,
    ) -> RankResponse:
        """The best ads for a user in a context."""
        fields = {"context": context, "k": k, "candidates": candidates, "filters": filters, "user": user}
        return await self._do(rank_call(user_id=user_id, **fields), deadline_ms)

    async def score(
        self,
        user_id: Id,
        ads: Sequence[Id],
        *,
        context: Mapping[str, Value] | None = None,
        user: Given | None = None,
        deadline_ms: float | None = None,
    ) -> ScoreResponse:
        """The click probability of each of these ads, in their order."""
        return await self._do(score_call(user_id=user_id, ads=ads, context=context, user=user), deadline_ms)

    async def events(self, events: Sequence[EventIn], *, deadline_ms: float | None = None) -> EventsResponse:
        """Tell what users did, in order of time. Sent again only where the service cannot have taken them."""
        return await self._do(events_call(events=events), deadline_ms)

    async def bundles(self, *, deadline_ms: float | None = None) -> BundlesResponse:
        """What is served, the control's bundle first."""
        return await self._do(BUNDLES_CALL, deadline_ms)

    async def _do(self, call: Call[A], deadline_ms: float | None) -> A:
        within = self._deadline_ms if deadline_ms is None else deadline_ms
        course = Course(call, self.url, within, self._budget, time.monotonic())
        while True:
            found = await self._exchange(call, course.sending(time.monotonic()))
            judged = course.judge(found, time.monotonic())
            if not isinstance(judged, Wait):
                return judged
            await asyncio.sleep(judged.seconds)

    async def _exchange(self, call: Call[A], sending: Sending) -> Received | Lost:
        placed = False
        try:
            # Of the whole exchange: httpx counts every read anew.
            async with asyncio.timeout(sending.left_s), self._places:
                placed = True
                return received(await self._in_lane(call, sending))
        except (httpx.HTTPError, TimeoutError) as error:
            return lost(error, placed=placed)

    async def _in_lane(self, call: Call[A], sending: Sending) -> httpx.Response:
        lane, whole = self._lanes.take(), False
        try:
            answer = await lane.request(call.method, call.path, content=sending.content, headers=dict(sending.headers))
            whole = True
            return answer
        finally:
            if whole:
                self._lanes.give(lane)
            else:
                self._lanes.drop(lane)
                await lane.aclose()
