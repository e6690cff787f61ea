"""How tasks that would go on for ever are ended."""

import asyncio
import logging
from typing import Any

log = logging.getLogger("adrank.serve")
AGAIN_S = 1.0
"""Between two cancellations."""


async def ended(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel these tasks and wait until they have ended.

    One cancellation is not always enough. In Python 3.11 `asyncio.wait_for`, by which redis-py sends commands, returns
    as if nothing had happened when it is cancelled in the moment that its work is done. Who awaited a task that follows
    Redis after cancelling it once would now and then wait for ever, and the service never stop. One that failed is
    logged: whoever stops goes on, so that what else is open is closed.
    """
    given = {each for each in tasks if each is not None}
    waiting = given
    while waiting:
        for each in waiting:
            each.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=AGAIN_S)
    for each in given:
        if not each.cancelled() and (error := each.exception()) is not None:
            log.error("%r had failed", each, exc_info=error)
