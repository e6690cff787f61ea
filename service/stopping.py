"""How the service ends: no request that reached it is lost.

1. `/readyz` says 503 and every answer ends its connection, so that balancers and clients look elsewhere. What comes is
   still served, new connections too, for `drain` seconds.
2. New connections are refused. Those that were made already are accepted and served.
3. A connection ends with its next answer, or when it asked nothing for IDLE_S.
4. What is still in flight after `shutdown_seconds` is cut (uvicorn).

A second signal ends 1 to 3. Ctrl-C leaves 1 out: somebody waits for it.
"""

import asyncio
import fcntl
import logging
import signal
import socket
import struct
import termios
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from service.api import DRAINING
from service.listener import refuse_new, refuses_new, waiting
from service.log_lines import Said

log = logging.getLogger("adrank.serve")
LOOK_S = 0.05
ACCEPT_S = 0.3
"""From refusing new connections to closing the socket: handshakes that had begun end in it, within a round trip."""
IDLE_S = 1.0
"""A connection that asks nothing for so long is closed. Its client may ask in that very moment, as whenever a server
ends a kept connection; one that asks more often than once a second does not come to that."""
LATE_S = 3.0
"""Worker processes wait for their parent to refuse new connections; so long when it is one worker alone that ends."""
CLOSE = (b"connection", b"close")


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which by itself closes idle connections at once, with requests on their way."""

    def __init__(self, config: uvicorn.Config, drain_s: float, alone: bool) -> None:
        """`alone`: no other process has its listening socket."""
        super().__init__(config)
        self._drain_s, self._alone = drain_s, alone
        self._hurried = False
        self._idle_since: dict[Any, float] = {}
        """Connections of which no request is in flight -> since when that is known."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second hurries it."""
        self._hurried = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """All four steps."""
        begun = time.monotonic()
        await self._drain(sockets or [])
        await super().shutdown(sockets)
        log.info(Said("stopped", seconds=round(time.monotonic() - begun, 3)))

    async def _drain(self, sockets: list[socket.socket]) -> None:
        wait_s = 0.0 if self._captured_signals[:1] == [signal.SIGINT] else self._drain_s
        log.info(Said("stopping", drain_seconds=wait_s, connections=len(self._connections)))
        self.lifespan.state[DRAINING] = True
        await self._serve_for(wait_s)
        if self._alone:
            for each in sockets:
                refuse_new(each)
        else:
            await self._serve_for(LATE_S, lambda: all(map(refuses_new, sockets)))
        await self._serve_for(ACCEPT_S)
        # A process that had no processor meanwhile has accepted nothing, and its timers come before its sockets.
        await self._serve_for(LATE_S, lambda: not any(map(waiting, sockets)))
        for server in self.servers:
            server.close()
        await self._end_connections()

    @property
    def _connections(self) -> set[Any]:
        return cast("set[Any]", self.server_state.connections)

    async def _serve_for(self, seconds: float, over: Callable[[], bool] = lambda: False) -> None:
        """Each answer ends its connection."""
        end = time.monotonic() + seconds
        while not self._hurried and not over() and (left := end - time.monotonic()) > 0:
            await self._each_answer_is_the_last()
            await asyncio.sleep(min(LOOK_S, left))

    async def _end_connections(self) -> None:
        """Until all are closed, or `shutdown_seconds` are over."""
        end = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        await asyncio.sleep(LOOK_S)  # those that were accepted just now are among them only after a turn of the loop
        while self._connections and not self._hurried and (now := time.monotonic()) < end:
            await self._each_answer_is_the_last()
            for each, since in self._idle_since.items():
                if now - since >= IDLE_S and not _unread(each):
                    each.shutdown()
            await asyncio.sleep(LOOK_S)

    async def _each_answer_is_the_last(self) -> None:
        """Requests that come from now on get the header; those in flight end their connection by themselves."""
        await self.on_tick(0)  # the date
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        now, idle = time.monotonic(), []
        for each in self._connections:
            if each.cycle is None or each.cycle.response_complete:
                idle.append(each)
            else:
                each.cycle.keep_alive = False
        self._idle_since = {each: self._idle_since.get(each, now) for each in idle}


def _unread(connection: Any) -> int:
    """Bytes that came and were not read yet: to close a connection that has some would reset it."""
    descriptor = connection.transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return 0
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))
    return int(count)


class _Worker(Process):
    """One of several processes with the same socket."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], drain_s: float) -> None:
        super().__init__(config, sockets)
        self._drain_s = drain_s

    @property
    def server(self) -> uvicorn.Server:
        """What runs in it."""
        if self._server is None:
            self._server = DrainingServer(self.config, self._drain_s, alone=False)
        return self._server


class Workers(Multiprocess):
    """uvicorn's worker processes. Their socket is one, so that only the last word of all may refuse connections."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], drain_s: float) -> None:
        super().__init__(config, sockets)
        self._drain_s = drain_s

    def init_processes(self) -> None:
        """Start them."""
        self.processes = [self._begun() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        """Another one for each that ended; the end of all when one cannot start, because no other could.

        uvicorn asks each whether it lives as well, waits for 5 s, and kills it: so it does with one that starts slowly.
        """
        for i, process in enumerate(self.processes):
            if self.should_exit.is_set() or process.process.is_alive():
                continue
            process.join()
            fields: dict[str, object] = {"worker": process.pid, "exit_code": process.exitcode}
            if process.exitcode == STARTUP_FAILURE:
                log.error(Said("a worker could not start, all end", **fields))
                self.should_exit.set()
            else:
                log.warning(Said("a worker ended, another one starts", **fields))
                self.processes[i] = self._begun()

    def terminate_all(self) -> None:
        """All of them begin to end; a second signal is handed on."""
        super().terminate_all()
        end = time.monotonic() + self._drain_s
        while time.monotonic() < end and not self.signal_queue:
            time.sleep(LOOK_S)
        for each in self.sockets:
            refuse_new(each)
        if self.signal_queue:
            super().terminate_all()

    def handle_int(self) -> None:
        """Ctrl-C: somebody waits for it."""
        self._drain_s = 0.0
        super().handle_int()

    def handle_hup(self) -> None:
        """Bundles are changed by the desired state, settings by a restart."""

    handle_ttin = handle_ttou = handle_hup

    def _begun(self) -> Process:
        process = _Worker(self.config, self.sockets, self._drain_s)
        process.start()
        return process
