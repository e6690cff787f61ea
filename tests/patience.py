"""How tests wait for another thread or process: long enough for a machine that is full of other work."""

import asyncio
import time
from collections.abc import Callable

UNHURRIED = {"ADRANK_GATE_LATENCY_RATIO": "99", "ADRANK_GATE_IDLE_SECONDS": "0"}
"""Settings of all services that tests start: on a busy machine, too, new bundles are judged and not too slow."""
PATIENCE_S = 300.0
"""A wait that ends the test as failed. No test is about this time: what hangs is to be told from what is slow."""


def until(condition: Callable[[], object], said: Callable[[], object] = str, every_s: float = 0.02) -> None:
    """Wait for it.

    Args:
        condition: asked every `every_s` seconds.
        said: what a failure shows.

    Raises:
        AssertionError: it did not come true within `PATIENCE_S`.
    """
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"it never came true: {said()}"
        time.sleep(every_s)


async def soon(condition: Callable[[], object], said: Callable[[], object] = str, every_s: float = 0.01) -> None:
    """`until` in an event loop, which runs in between."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"it never came true: {said()}"
        await asyncio.sleep(every_s)
