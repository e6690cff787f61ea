"""Processes of `adrank`, as somebody starts them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.patience import PATIENCE_S, until
from tests.service.conftest import free_port

ROOT = Path(__file__).parents[2]


def adrank(*words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """One command, to its end."""
    return subprocess.run(
        [sys.executable, str(ROOT / "adrank.py"), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@contextmanager
def running(*words: str, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command that runs until the end of the block, when it is told to stop."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "adrank.py"), *words], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@contextmanager
def serving(bundle: Path, *options: str, **variables: str) -> Iterator[str]:
    """The address of a service."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running("serve", "--bundle", str(bundle), "--port", str(port), "--log-level", "error", *options, **variables):
        until(lambda: is_ready(url))
        yield url


def is_ready(url: str) -> bool:
    """Whether the service answers."""
    try:
        return httpx.get(f"{url}/readyz", timeout=PATIENCE_S).is_success
    except httpx.TransportError:
        return False
