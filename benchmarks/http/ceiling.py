"""What the load generator can do at most: against a server that answers every request with the same bytes."""

import asyncio
import sys
from pathlib import Path
from typing import cast

import uvloop

from benchmarks.http.load import closed_loop
from benchmarks.http.process import Cores, ServerProcess, free_port, on_core
from benchmarks.timing import p50

ANSWER_BYTES = 12_000
"""About what a peer answers for 500 ads."""
HEAD = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {ANSWER_BYTES}\r\n\r\n".encode()
ANSWER = HEAD + b" " * ANSWER_BYTES
HEAD_END, LENGTH = b"\r\n\r\n", b"Content-Length: "
START_S = 20.0


def measure_ceiling(
    requests: list[bytes], cores: Cores, folder: Path, seconds: float
) -> dict[int, tuple[float, float]]:
    """Connections -> requests a second and p50 in ms, of the generator with a server that does nothing."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.http.ceiling", str(port)]
    here = {"PYTHONPATH": str(Path(__file__).parents[2])}
    server = ServerProcess(command, here, folder, ("127.0.0.1", port), cores.server)
    found = {}
    try:
        server.wait_until_it_answers(requests[0], START_S)
        with on_core(cores.load):
            for connections in (1, 4):
                measured = closed_loop(server.address, requests, connections, seconds)
                found[connections] = measured.throughput, p50(measured.latencies)
    finally:
        server.stop()
    return found


class Echo(asyncio.Protocol):
    """Reads whole requests, answers ANSWER."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Answer once the announced length is there."""
        self._received += data
        head, found, body = self._received.partition(HEAD_END)
        if found and len(body) >= int(head.partition(LENGTH)[2].partition(b"\r")[0]):
            self._received = b""
            assert self._transport is not None
            self._transport.write(ANSWER)


async def serve(port: int) -> None:
    """Until ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
