"""A real service in a process of its own, and a small real server whose behaviour is known."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from loadtest.generators import Generators
from loadtest.served import Served, serve
from tests.service.world import make_world

PATIENT = ["--default-deadline-ms", "8000", "--features-timeout-ms", "1500", "--redis-timeout-ms", "1000"]


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def service(served_folder: Path) -> Iterator[Served]:
    with serve(served_folder, PATIENT) as served:
        yield served


@pytest.fixture(scope="session")
def generators() -> Iterator[Generators]:
    with Generators(2) as started:
        yield started


@contextmanager
def answering(answer: Callable[[int], tuple[int, float]]) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server whose i-th answer has the status and comes after the seconds that `answer(i)` says. Its address, and the
    paths and bodies it got."""
    got: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, body))
            status, seconds = answer(len(got) - 1)
            time.sleep(seconds)
            text = json.dumps({"degraded": [], "bundle_id": "small"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Server-Timing", f"finerank;dur={seconds * 1e3}, total;dur={seconds * 1e3}")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # of a client that did not wait
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
