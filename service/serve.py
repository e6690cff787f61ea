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
from service.listener import listen
from service.loading import load_bundle
from service.log_lines import Said, configure_logging
from service.metrics import SHARED_DIR
from service.settings import Settings, read_settings, to_environment
from service.stopping import DrainingServer, Workers

log = logging.getLogger("adrank.serve")
EVERYWHERE = ("0.0.0.0", "::")


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
    settings = None
    try:
        settings = read_settings(**given)
        return _serve(settings)
    except (BundleError, StartError) as error:
        if settings is not None and settings.log_format == "json":
            log.error(Said("not started", error=str(error)))
        else:
            print(f"adrank serve: {error}", file=sys.stderr)
        return 2


def _serve(settings: Settings) -> int:
    start = time.perf_counter()
    configure_logging(settings)
    with listen(settings.host, settings.port) as listener:
        loaded = load_bundle(settings.bundle, settings)
        host, port = listener.getsockname()[:2]
        address = f"http://{'127.0.0.1' if host in EVERYWHERE else host}:{port}"

        bundle, ads = loaded.id, len(loaded.bundle.ads.index)
        example = curl_line(loaded.bundle, address, with_key=settings.api_key is not None)

        def announce() -> None:
            seconds = time.perf_counter() - start
            if settings.log_format == "json":
                log.info(Said("serving", address=address, bundle=bundle, ads=ads, seconds=round(seconds, 3)))
                return
            print(f"bundle {bundle}: {ads} ads, checked and proved in {seconds:.1f} s")
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
                _Announcing(uvicorn.Config(app, **_options(settings)), settings.draining_s, announce).run([listener])
    return 0


class _Announcing(DrainingServer):
    """Says that it serves once it does."""

    def __init__(self, config: uvicorn.Config, drain_s: float, announce: Callable[[], None]) -> None:
        super().__init__(config, drain_s, alone=True)
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
        config = uvicorn.Config(
            "service.app:app_from_environment", factory=True, workers=settings.workers, **_options(settings)
        )
        Workers(config, [listener], settings.draining_s).run()


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "log_config": None,
        "log_level": "info" if settings.log_level == "debug" else "warning",
        "access_log": False,
        "timeout_graceful_shutdown": settings.shutdown_seconds,
        "server_header": False,
    }


def _ended(*_: object) -> None:
    """uvicorn raises the stop signal again after it has ended cleanly; that is no reason to die of it."""
