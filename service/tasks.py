"""How tasks that would go on for ever are ended."""

import asyncio
from typing import Any

AGAIN_S = 1.0
"""Between two cancellations."""


async def ended(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel these tasks and wait until they have ended.

    One cancellation is not always enough. In Python 3.11 `asyncio.wait_for`, by which redis-py sends commands, returns
    as if nothing had happened when it is cancelled in the moment that its work is done. Who awaited a task that follows
    Redis after cancelling it once would now and then wait for ever, and the service never stop.
    """
    waiting = {each for each in tasks if each is not None}
    while waiting:
        for each in waiting:
            each.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
