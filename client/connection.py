"""What both clients say to httpx, and what its errors mean. The only place that knows them."""

import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Generic, TypedDict, TypeVar

import httpcore
import httpx

from client.calls import Lost, Received
from client.errors import ArgumentError

IDLE_S = 4.0
"""A connection is not used again after so long: the service closes it after 5 s, and a request that meets that close is
lost."""
ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE_S)
PIECE = 65_536
"""Bytes that are written at once: the deadline is looked at in between."""
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
END: ContextVar[float] = ContextVar("END")
"""When the call of this thread has to be over, by time.monotonic."""


class Options(TypedDict):
    """What httpx.Client and httpx.AsyncClient are made with."""

    base_url: str
    headers: dict[str, str]
    trust_env: bool


def options(url: str, key: str | None, headers: Mapping[str, str] | None) -> Options:
    """No proxy and no netrc of the environment: a call goes where its address says. ArgumentError for an address that
    is none, and for headers that HTTP does not carry."""
    try:
        read = httpx.URL(url)
        read.host.encode("idna")  # as the system does it when it looks the name up
    except (httpx.InvalidURL, TypeError, UnicodeError) as error:
        raise ArgumentError(f"url is no address: {error}") from error
    if read.userinfo or read.query or read.fragment:  # not repeated: there may be a password in it
        raise ArgumentError("url has a user, a query or a fragment: only scheme, host, port and path are taken")
    if read.scheme not in ("http", "https") or not read.host:
        raise ArgumentError(f"url is {url!r}, http://HOST:PORT or https://HOST:PORT is needed")
    said = {"User-Agent": "adrank-client", "Content-Type": "application/json", **(headers or {})}
    if key is not None:
        said["Authorization"] = f"Bearer {key}"
    for name, value in said.items():
        if not value.isascii() or not value.isprintable():  # the value is not said: it may be the key
            raise ArgumentError(f"the header {name} has characters that HTTP does not carry")
    return {"base_url": url, "headers": said, "trust_env": False}


def trust(url: str, verify: ssl.SSLContext | bool) -> ssl.SSLContext:
    """How a https address is checked: made once, because reading the certificates takes 20 ms."""
    if isinstance(verify, ssl.SSLContext):
        return verify
    return httpx.create_ssl_context(verify=verify and url.startswith("https:"), trust_env=False)


H = TypeVar("H", bound=httpx.Client | httpx.AsyncClient)


class Lanes(Generic[H]):
    """Connections, each with an httpx client of its own. The one used last is the first to be used again.

    httpx's own pool looks at all connections and at all that wait, for every request: of 1,000 calls over 100
    connections each took 10 ms of the processor instead of 1 (httpcore 1.0.9).
    """

    def __init__(self, make: Callable[[], H], most: int) -> None:
        """ArgumentError for no connections at all."""
        if most < 1:
            raise ArgumentError(f"connections is {most}, at least 1 is needed")
        self._make = make
        self._free: list[H] = []
        self.made: list[H] = []
        """All there are."""

    def take(self) -> H:
        """One that nobody uses. How many are in use at the same time is for the caller to bound."""
        try:
            return self._free.pop()
        except IndexError:
            self.made.append(lane := self._make())
            return lane

    def give(self, lane: H) -> None:
        """It is free again."""
        self._free.append(lane)

    def drop(self, lane: H) -> None:
        """It is not used again, because its last call was cut off: an httpx connection whose caller is cancelled at the
        wrong moment counts as taken for ever."""
        self.made.remove(lane)


def received(answer: httpx.Response) -> Received:
    """A whole answer."""
    return Received(answer.status_code, answer.headers, answer.content)


def lost(error: httpx.HTTPError | TimeoutError, *, placed: bool) -> Lost:
    """Why there is none. The name of an error that says nothing stands for it. `placed`: it had a connection."""
    late = isinstance(error, httpx.TimeoutException | TimeoutError)
    return Lost(str(error) or type(error).__name__, late, maybe_taken=placed and not isinstance(error, NOT_SENT))


class DeadlineTransport(httpx.HTTPTransport):
    """httpx counts every read of a socket anew, so that a server that sends a byte now and then holds a caller for
    ever. Here all reads and writes of a call end at END."""

    def __init__(self, verify: ssl.SSLContext) -> None:
        super().__init__(verify=verify, limits=ONE, trust_env=False)
        self._pool._network_backend = _Backend()  # httpx takes none from its callers


def _left(timeout: float | None, kind: type[httpcore.TimeoutException]) -> float:
    left = END.get() - time.monotonic()
    if left <= 0:
        raise kind("the deadline passed")
    return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for first in range(0, len(buffer), PIECE):
            self._stream.write(buffer[first : first + PIECE], _left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _left(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = _left(timeout, httpcore.ConnectTimeout)
        return _Stream(super().connect_tcp(host, port, left, local_address, socket_options))
