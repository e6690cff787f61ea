"""A Redis of the load test's own, which it can take away and give back. Its data outlive it: all is
appended to a file at once."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

from loadtest.served import StartError

PROGRAMS = ("redis-server", "valkey-server")
WAIT_S = 20.0


class Store:
    """A server process on a free port of this machine, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        """StartError without a Redis server on this machine."""
        found = next((path for name in PROGRAMS if (path := shutil.which(name))), None)
        if found is None:
            raise StartError(f"losing Redis needs {' or '.join(PROGRAMS)} on this machine")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        self._command = [found, *options, "--appendonly", "yes", "--appendfsync", "always"]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it listens. StartError when it does not."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.kill()
        raise StartError(f"the Redis server does not listen on port {self.port} after {WAIT_S:g} s")

    def kill(self) -> None:
        """Take it away, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
