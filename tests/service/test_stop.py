"""The end of a real service under load: nothing is lost; and each step of it by itself."""

import asyncio
import signal
import socket
from pathlib import Path

import httpx
import pytest

from benchmarks.stop import stopped_under_load
from service.listener import listen, refuse_new, refuses_new
from service.listener import waiting as backlog
from tests.patience import PATIENCE_S, until
from tests.service.conftest import RedisServer
from tests.service.test_serve import Served, served

ASK = {"user_id": "anna", "k": 5}


def request(path: str, body: bytes = b"") -> bytes:
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def answer(connection: socket.socket) -> bytes:
    """One whole answer, to the end of the connection."""
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def connected(service: Served) -> socket.socket:
    host, port = service.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def refuses(service: Served) -> bool:
    """Whether it takes no new connection."""
    try:
        connected(service).close()
    except OSError:
        return True
    return False


def until_unready(service: Served) -> None:
    def status() -> int:
        return httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).status_code

    until(lambda: status() == 503, lambda: "it stays ready", 0.01)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost(folder: Path, redis_server: RedisServer, workers: int) -> None:
    options = ["--drain-seconds", "0.3", "--max-in-flight", "1000", "--log-level", "error"]
    if workers > 1:
        options += ["--workers", str(workers), "--redis-url", redis_server.url, "--redis-prefix", "stop:"]
    with served(folder, *options) as service:
        httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).raise_for_status()  # workers start after it is announced
        load = stopped_under_load(service.process, service.url, [ASK | {"user_id": i} for i in range(9)], 60, 0.5)
        done = asyncio.run(load)
    assert done.lost == []
    assert done.exit_code == 0
    assert done.statuses.keys() == {200}
    assert done.after > 0, "the service answers while it ends"
    assert done.unready_ms > 0, "and said before that it is not ready"


def test_while_it_drains_it_is_not_ready_and_answers_new_connections(folder: Path) -> None:
    with served(folder, "--drain-seconds", "2") as service, connected(service) as kept:
        kept.sendall(request("/healthz"))
        first = b""
        while not first.endswith(b"}"):
            first += kept.recv(65536)
        assert b"connection: close" not in first
        service.process.send_signal(signal.SIGTERM)
        until_unready(service)
        unready = httpx.get(f"{service.url}/readyz", timeout=PATIENCE_S).json()["error"]
        assert (unready["code"], unready["message"][:11]) == ("not_ready", "the process")
        ranked = httpx.post(f"{service.url}/v1/rank", timeout=PATIENCE_S, json=ASK)
        assert ranked.status_code == 200
        assert ranked.headers["connection"] == "close"
        kept.sendall(request("/healthz"))
        last = answer(kept)
        assert last.startswith(b"HTTP/1.1 200 ")
        assert last.count(b"connection: close") == 1
        assert service.process.wait(PATIENCE_S) == 0


def test_a_request_in_flight_is_finished(folder: Path) -> None:
    """Its body comes after the service took no connection any more."""
    body = b'{"user_id": "anna"}'
    with served(folder) as service, connected(service) as slow:
        whole = request("/v1/rank", body)
        slow.sendall(whole[: -len(body)])
        service.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(service), lambda: "it takes connections for ever", 0.05)
        slow.sendall(body)
        assert answer(slow).startswith(b"HTTP/1.1 200 ")
        assert service.process.wait(PATIENCE_S) == 0


def test_who_never_ends_is_cut_and_a_second_signal_hurries(folder: Path) -> None:
    with served(folder, "--drain-seconds", "600", "--shutdown-seconds", "1") as service, connected(service) as stuck:
        stuck.sendall(request("/v1/rank", b"{}")[:-2])
        service.process.send_signal(signal.SIGTERM)
        until_unready(service)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(PATIENCE_S) == 0


def test_connections_that_were_made_are_accepted_and_no_others() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert not refuses_new(listener)
        with socket.create_connection(listener.getsockname()) as waiting:
            waiting.sendall(b"hello")
            refuse_new(listener)
            assert backlog(listener) == 1
            assert refuses_new(listener)
            with socket.socket() as late:
                late.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    late.connect(listener.getsockname())
            accepted, _ = listener.accept()
            assert backlog(listener) == 0
            with accepted:
                assert accepted.recv(5) == b"hello"
                waiting.sendall(b"again")
                assert accepted.recv(5) == b"again", "the filter is the listening socket's alone"
