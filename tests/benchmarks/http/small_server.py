"""A real HTTP server in a thread, slow or wrong as told."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    status: int = 200
    delay_s: float = 0.0
    one_at_a_time: bool = False
    cut_after: int | None = None
    """Close the connection instead of answering, from this request on."""
    idle_s: float | None = None
    """Close connections that ask nothing for so long."""
    bodies: list[bytes] = field(default_factory=list)
    connections: int = 0


@contextmanager
def small_server(behaviour: Behaviour) -> Iterator[tuple[str, int]]:
    """The address of a server that answers {"bytes": length of the body}, in two pieces."""
    busy = Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = behaviour.idle_s

        def setup(self) -> None:
            behaviour.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if behaviour.one_at_a_time:
                with busy:
                    time.sleep(behaviour.delay_s)
            else:
                time.sleep(behaviour.delay_s)
            behaviour.bodies.append(body)
            if behaviour.cut_after is not None and len(behaviour.bodies) > behaviour.cut_after:
                self.close_connection = True
                return
            answer = b'{"bytes": %d}' % len(body)
            self.send_response(behaviour.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[:3])
            self.wfile.flush()
            self.wfile.write(answer[3:])

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # a client that has seen enough closes its connection
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
