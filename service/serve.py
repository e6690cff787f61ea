"""`adrank serve`: run the service over HTTP. A start that cannot succeed is one line and exit code 2."""

# ruff: noqa: E402
import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # read by the libraries when they load, so before they do:
    os.environ.setdefault(_name, "1")  # requests already fill the cores, thread pools of their own would only fight

import uvicorn

from bundle.errors import BundleError
from service.app import create_app
from service.errors import StartError
from service.example import curl_line
from service.loading import load_bundle
from service.metrics import SHARED_DIR
from service.settings import Settings, read_settings, to_environment

EVERYWHERE = ("0.0.0.0", "::")
BACKLOG = 2048
"""Connections the system keeps waiting; uvicorn's own number."""


def main(argv: list[str]) -> int:
    """Serve until told to stop. 0 after a clean end, 2 when the service cannot start."""
    parser = argparse.ArgumentParser(
        prog="adrank serve",
        description="Serve a bundle over HTTP. Every setting can also come from the environment: ADRANK_BUNDLE, "
        "ADRANK_PORT, ...; the command line goes first.",
    )
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default {field.default}"
        text = f"{field.description} [{default}]".replace("%", "%%")
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar="VALUE", help=text)
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    try:
        return _serve(read_settings(**given))
    except (BundleError, StartError) as error:
        print(f"adrank serve: {error}", file=sys.stderr)
        return 2


def _serve(settings: Settings) -> int:
    start = time.perf_counter()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    with _listen(settings.host, settings.port) as listener:
        loaded = load_bundle(settings.bundle, settings)
        host, port = listener.getsockname()[:2]
        address = f"http://{'127.0.0.1' if host in EVERYWHERE else host}:{port}"

        what, example = f"bundle {loaded.id}: {len(loaded.bundle.ads.index)} ads", curl_line(loaded.bundle, address)

        def announce() -> None:
            print(f"{what}, checked and proved in {time.perf_counter() - start:.1f} s")
            print(f"serving {address}, documentation at {address}/docs; try:\n")
            print(example + "\n", flush=True)

        signal.signal(signal.SIGTERM, _ended)
        with contextlib.suppress(KeyboardInterrupt):
            if settings.workers > 1:
                del loaded
                _run_workers(settings, listener, announce)
            else:
                app = create_app(settings, loaded, own_process=True)
                del loaded  # other bundles may take its place, and it must not stay in memory
                _Announcing(_config(app, settings), announce).run(sockets=[listener])
    return 0


class _Announcing(uvicorn.Server):
    """Says that it serves once it does."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()


def _run_workers(settings: Settings, listener: socket.socket, announce: Callable[[], None]) -> None:
    """Worker processes on one socket. The bundle was proved here, so that a wrong one ends the start at once; each
    worker loads its own. They read their settings from the environment and share a folder for metrics."""
    with tempfile.TemporaryDirectory(prefix="adrank-metrics-", ignore_cleanup_errors=True) as shared:
        os.environ |= to_environment(settings) | {SHARED_DIR: shared}
        announce()
        uvicorn.run(
            "service.app:app_from_environment",
            factory=True,
            workers=settings.workers,
            fd=listener.fileno(),
            **_options(settings),
        )


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(app, **_options(settings))


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "log_config": None,
        "log_level": "info" if settings.log_level == "debug" else "warning",
        "access_log": False,
        "timeout_graceful_shutdown": settings.shutdown_seconds,
        "server_header": False,
    }


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens before anything is loaded: a port that is taken is said at once. Requests that come during
    the start wait for it."""
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it. Worker processes get the bare descriptor, for which the event loop does not
        # set it; an answer's second packet then waited 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # two processes may bind one port, but only one of them may listen
        listener.set_inheritable(True)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    return listener


def _ended(*_: object) -> None:
    """uvicorn raises the stop signal again after it has ended cleanly; that is no reason to die of it."""
