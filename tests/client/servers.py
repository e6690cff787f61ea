"""Small real servers that answer as told, or do not; and both clients behind one face."""

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from client import AsyncClient, Client

RANKED = {
    "request_id": "r1",
    "version": 1,
    "arms": {"trial": "new"},
    "bundle_id": "small",
    "user": "known",
    "scored_by": "finerank",
    "rung": "full",
    "ads": [{"ad_id": 7, "position": 1, "pctr": 0.25, "bid": 2.0, "ecpm": 0.5}],
    "stages": [{"name": "retrieval", "in": 5, "out": 1, "ms": 0.5, "degraded": None, "note": None}],
    "degraded": [],
    "unknown_candidates": [],
    "excluded_candidates": [],
    "features_ms": 0.1,
    "queue_ms": 0.2,
    "total_ms": 1.5,
}
TAKEN = {"request_id": "r1", "accepted": 1, "ignored": 0, "unknown_ads": 0, "logged": 0}


def problem(code: str, message: str = "no", field: str | None = None, bound: str | None = None) -> bytes:
    """A problem as the service writes it."""
    said = {"code": code, "message": message, "field": field, "bound": bound, "request_id": "r1"}
    return json.dumps({"error": said}).encode()


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    body: bytes = json.dumps(RANKED).encode()
    headers: dict[str, str] = field(default_factory=dict)
    held_s: float = 0.0
    """Before it answers."""
    drip_s: float = 0.0
    """Between each two bytes."""
    cut: int | None = None
    """Bytes of the answer that are sent before the connection is closed."""


FINE = Act()
EVENTS_FINE = Act(body=json.dumps(TAKEN).encode())
SHED = Act(429, problem("overloaded"), {"Retry-After": "1"})
NOT_READY = Act(503, problem("not_ready"))
GONE = Act(cut=0)


@dataclass(frozen=True)
class Seen:
    """One request that came."""

    line: str
    headers: dict[str, str]
    body: Any
    at: float
    connection: int


class Server:
    """Answers its i-th request as `act(i)` says. It keeps what came."""

    def __init__(self, act: Callable[[int], Act], tls: ssl.SSLContext | None = None) -> None:
        self.act = act
        self.tls = tls
        self.seen: list[Seen] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Refuse and cut connections from now on."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with self._lock:
                self._open.append(connection)
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection, self.connections))
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), self._secured(connection) as secured, secured.makefile("rb") as file:
            while line := file.readline():
                headers = {}
                while (header := file.readline().strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", "0")))
                with self._lock:
                    seen = Seen(line.decode().strip(), headers, json.loads(body or b"null"), time.monotonic(), number)
                    act = self.act(len(self.seen))
                    self.seen.append(seen)
                if not self._answer(secured, act):
                    return

    def _secured(self, connection: socket.socket) -> socket.socket:
        return connection if self.tls is None else self.tls.wrap_socket(connection, server_side=True)

    def _answer(self, connection: socket.socket, act: Act) -> bool:
        """Whether the connection goes on."""
        self._closing.wait(act.held_s)
        headers = {"Content-Length": str(len(act.body)), **act.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        whole = f"HTTP/1.1 {act.status} said\r\n{head}\r\n".encode() + act.body
        if act.cut is not None:
            connection.sendall(whole[: act.cut])
            return False
        for first in range(0, len(whole), 1) if act.drip_s else ():
            connection.sendall(whole[first : first + 1])
            if self._closing.wait(act.drip_s):
                return False
        if not act.drip_s:
            connection.sendall(whole)
        return True


@contextmanager
def serving(act: Callable[[int], Act], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server until the end of the block."""
    server = Server(act, tls)
    try:
        yield server
    finally:
        server.close()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for 127.0.0.1, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "adrank test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = Encoding.PEM
    (folder / "key.pem").write_bytes(key.private_bytes(pem, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "certificate.pem"))


class Waited:
    """AsyncClient with methods that wait, as those of Client."""

    def __init__(self, runner: "asyncio.Runner", client: AsyncClient) -> None:
        self._runner, self._client = runner, client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *given, **named: self._runner.run(method(*given, **named))


@contextmanager
def blocking(url: str, **options: Any) -> Iterator[Any]:
    """Client."""
    with Client(url, **options) as client:
        yield client


@contextmanager
def concurrent(url: str, **options: Any) -> Iterator[Any]:
    """AsyncClient, behind the same face."""
    with asyncio.Runner() as runner:
        client = AsyncClient(url, **options)
        try:
            yield Waited(runner, client)
        finally:
            runner.run(client.close())
