"""Property tests draw the same examples every time, and a busy machine is no failure.

What several folders share is made once a session. The imports stand inside, so that service tests need no torch.
A test process computes in one thread: `make test` has as many processes as there are processors.
"""

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.patience import UNHURRIED

if TYPE_CHECKING:
    from export.assemble import Trained
    from tests.market import Demo, Market

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read at the first import
# Commands that tests start train in two threads. On a busy machine these would spend five times the work on waiting.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ |= UNHURRIED
# Shells start what is to run behind them with Ctrl-C ignored. Tests send it, to themselves and to commands.
signal.signal(signal.SIGINT, signal.default_int_handler)
OPEN_FILES = 400
"""With more of them unused ones are looked for."""
settings.register_profile("adrank", deadline=None, derandomize=True)
settings.load_profile("adrank")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first, each in its order: at the end no process is at one while others have none."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is loaded once is kept out of what tests cost: torch's exporter took 3.3 s for a small DIN, then 1.8 s."""
    gc.collect()
    gc.freeze()
    if "torch" in sys.modules:
        # pytest listens to loggers that do not propagate, and torch writes out every step of an export to a listener.
        logging.getLogger("torch.__trace").propagate = True
    if "export.to_onnx" in sys.modules:
        keep_registry()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Bundles and prepared data hold 34 open files each, until the collector finds that nobody needs them. It is seldom
    at work, and many machines allow 1,024."""
    if sum(1 for _ in Path("/dev/fd").iterdir()) > OPEN_FILES:
        gc.collect()


def keep_registry() -> None:
    """torch's exporter makes the same table of 500 operators for each graph; here once a process and operator set."""
    from functools import cache

    from torch.onnx._internal.exporter._registration import ONNXRegistry

    ONNXRegistry.from_torchlib = staticmethod(cache(ONNXRegistry.from_torchlib))  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> "Market":
    """A tiny marketplace, prepared. torch computes in one thread from here on, so that runs can be compared bitwise."""
    from tests.market import make_market

    return make_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="session")
def trained(market: "Market", tmp_path_factory: pytest.TempPathFactory) -> "Trained":
    """A small checkpoint of each stage."""
    from tests.market import train_all

    return train_all(market, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def exported(trained: "Trained", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of those checkpoints, with 25 of the 200 users."""
    from export.assemble import FunnelSettings, assemble

    sizes = FunnelSettings(retrieval=120, qscore=80, prerank=40, finerank=20, interests=3, per_interest=10)
    return assemble(trained, tmp_path_factory.mktemp("bundles"), "tiny", sizes, users=25)[0]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> "Demo":
    """What `adrank demo` makes."""
    from tests.market import make_demo

    return make_demo(tmp_path_factory.mktemp("demo"))
