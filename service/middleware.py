"""Pure ASGI, from the outside in: request id and last resort, key, a free place in flight, the body's size and time."""

import asyncio
import logging
import re
import secrets
from time import perf_counter

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.credentials import Credential, shown_key
from service.errors import BodyTimeoutError, BodyTooLargeError, OverloadedError
from service.log_lines import Said
from service.metrics import NONE, Metrics
from service.problem import problem, unexpected
from service.request_lines import RequestLines
from service.timing import RequestTiming
from service.traffic import Traffic

log = logging.getLogger("adrank.http")
GONE = 499
"""Counted for callers that left before they had sent their request; nobody is there to answer."""
PUTS = 8
"""Changes of flags in flight at the same time in one process; each takes a few milliseconds."""
API, ADMIN = "/v1/", "/v1/admin/"
ARMS = ("/v1/rank", "/v1/score")
"""Where X-Adrank-Arm is taken."""
CHANGES = 4
"""Changes of what is served in flight at the same time in one process; each waits for its store."""
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class RequestIdMiddleware:
    """Gives every request an id, counts its answer, logs it, and turns an error nobody expected into a bare 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics, lines: RequestLines) -> None:
        self.app = app
        self.metrics = metrics
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An X-Request-Id that is short and plain is taken over, otherwise one is made."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if SANE_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = GONE
        except Exception:
            log.exception(Said("unexpected error", request_id=request_id))
            if status:  # the answer is half out: only cutting the connection tells the caller
                raise
            await unexpected(request_id)(scope, receive, send_with_id)
        route = getattr(scope.get("route"), "path", "other")
        timing: RequestTiming | None = scope["state"].get("timing")
        seconds = perf_counter() - start
        self.metrics.answered(route, status, seconds, NONE if timing is None else timing.dealt)
        self.lines.answered(request_id, route, status, seconds, timing)


class KeyMiddleware:
    """Lets nobody into /v1/ who shows no key of `api_key`: before a place in flight is taken, and anything read.

    Administration asks for a key of its own (admin_routes.py). Health, metrics and the documentation are open.
    """

    def __init__(self, app: ASGIApp, callers: Credential, testers: Credential) -> None:
        """Testers' keys are taken where arms can be named, which needs them in the same header."""
        self.app = app
        self.callers = callers
        self.testers = testers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One look at the headers; nothing is awaited."""
        if scope["type"] != "http" or not scope["path"].startswith(API) or scope["path"].startswith(ADMIN):
            await self.app(scope, receive, send)
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        shown = shown_key(header.decode("latin-1"))
        if self.callers.is_right(shown) or (scope["path"] in ARMS and self.testers.is_right(shown)):
            await self.app(scope, receive, send)
            return
        refusal = problem(self.callers.refusal(shown), scope["state"]["request_id"])
        await refusal(scope, receive, send)


class InFlightMiddleware:
    """Refuses a POST at once when `limit` of them are in flight: before anything of it is read or parsed.

    A PUT changes flags of ads and has places of its own, and so have changes of what is served: an ad or an experiment
    can be stopped while the service is overloaded.
    """

    def __init__(self, app: ASGIApp, limit: int, metrics: Metrics, traffic: Traffic) -> None:
        self.app = app
        self.limits = {"POST": limit, "PUT": PUTS, ADMIN: CHANGES}
        self.metrics, self.traffic = metrics, traffic
        self.counts = dict.fromkeys(self.limits, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Health and metrics are GETs and always pass: an overloaded service must stay observable."""
        if scope["type"] != "http" or scope["method"] not in self.limits:
            await self.app(scope, receive, send)
            return
        method: str = ADMIN if scope["path"].startswith(ADMIN) else scope["method"]
        if self.counts[method] >= self.limits[method]:
            self.metrics.refused()
            refusal = problem(OverloadedError(self.limits[method]), scope["state"]["request_id"])
            await refusal(scope, receive, send)
            return
        self._take(method, 1)
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._take(method, -1)

        async def send_without_place(message: Message) -> None:
            # Answers are whole before they start, so the work is done. Sending waits for the caller to read, which may
            # be never: a place held until then is lost.
            give_back()
            await send(message)

        try:
            await self.app(scope, receive, send_without_place)
        finally:
            give_back()

    def _take(self, method: str, places: int) -> None:
        self.counts[method] += places
        self.traffic.in_flight = sum(self.counts.values())
        self.metrics.in_flight(self.traffic.in_flight)


class BodyMiddleware:
    """Refuses bodies of more than `limit` bytes, by their announced length or while they stream in, and those that have
    not arrived after `timeout_s`."""

    def __init__(self, app: ASGIApp, limit: int, timeout_s: float) -> None:
        self.app = app
        self.limit = limit
        self.timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """BodyTooLargeError and BodyTimeoutError are raised out of `receive`, to whoever reads the body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self.limit:
            await problem(self._too_large(announced.decode()), scope["state"]["request_id"])(scope, receive, send)
            return
        read = 0
        complete = False
        end = asyncio.get_running_loop().time() + self.timeout_s

        async def limited() -> Message:
            nonlocal read, complete
            if complete:  # what follows a body is the end of the connection, which may take its time
                return await receive()
            try:
                async with asyncio.timeout_at(end):
                    message = await receive()
            except TimeoutError as error:
                raise BodyTimeoutError(f"the body did not arrive within {self.timeout_s:g} s") from error
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > self.limit:
                raise self._too_large(f"more than {self.limit}")
            return message

        await self.app(scope, limited, send)

    def _too_large(self, size: str) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"the body has {size} bytes, at most {self.limit} are read", None, f"at most {self.limit} bytes"
        )
