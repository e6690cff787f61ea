"""The client for programs that wait for each answer; many threads may share one."""

import ssl
import time
from collections.abc import Mapping, Sequence
from threading import Semaphore
from types import TracebackType
from typing import Self

import httpx

from client.calls import BUNDLES_CALL, A, Call, Lost, Received, events_call, rank_call, score_call
from client.connection import END, DeadlineTransport, Lanes, lost, options, received, trust
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


class Client:
    """A service at `url`. Every method raises ClientError."""

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
        """`key`: the service's, if it asks for one. `deadline_ms`: of calls that name none. `connections`: open at the
        same time; further calls wait for one. `headers`: sent with every call. `verify`: how to check a https address.
        """
        self.url = url.rstrip("/")
        self._deadline_ms = deadline_ms
        self._budget = RetryBudget()
        said, context = options(self.url, key, headers), trust(self.url, verify)
        self._lanes = Lanes(lambda: httpx.Client(**said, transport=DeadlineTransport(context)), connections)
        self._places = Semaphore(connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes.made:
            lane.close()

    def rank(
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
        return self._do(rank_call(user_id=user_id, **fields), deadline_ms)

    def score(
        self,
        user_id: Id,
        ads: Sequence[Id],
        *,
        context: Mapping[str, Value] | None = None,
        user: Given | None = None,
        deadline_ms: float | None = None,
    ) -> ScoreResponse:
        """The click probability of each of these ads, in their order."""
        return self._do(score_call(user_id=user_id, ads=ads, context=context, user=user), deadline_ms)

    def events(self, events: Sequence[EventIn], *, deadline_ms: float | None = None) -> EventsResponse:
        """Tell what users did, in order of time. Sent again only where the service cannot have taken them."""
        return self._do(events_call(events=events), deadline_ms)

    def bundles(self, *, deadline_ms: float | None = None) -> BundlesResponse:
        """What is served, the control's bundle first."""
        return self._do(BUNDLES_CALL, deadline_ms)

    def _do(self, call: Call[A], deadline_ms: float | None) -> A:
        within = self._deadline_ms if deadline_ms is None else deadline_ms
        course = Course(call, self.url, within, self._budget, time.monotonic())
        while True:
            found = self._exchange(call, course.sending(time.monotonic()))
            judged = course.judge(found, time.monotonic())
            if not isinstance(judged, Wait):
                return judged
            time.sleep(judged.seconds)

    def _exchange(self, call: Call[A], sending: Sending) -> Received | Lost:
        if not self._places.acquire(timeout=sending.left_s):
            return lost(TimeoutError(), placed=False)
        token, lane, whole = END.set(sending.end), self._lanes.take(), False
        try:
            answer = lane.request(
                call.method,
                call.path,
                content=sending.content,
                headers=dict(sending.headers),
                timeout=sending.left_s,
            )
            whole = True
            return received(answer)
        except httpx.HTTPError as error:
            return lost(error, placed=True)
        finally:
            END.reset(token)
            if whole:
                self._lanes.give(lane)
            else:
                self._lanes.drop(lane)
                lane.close()
            self._places.release()
