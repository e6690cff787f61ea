"""One log line a request: of those that were degraded, refused or failed, so many a second; with debug of all."""

import logging

from service.log_lines import Allowance, Said
from service.timing import RequestTiming

log = logging.getLogger("adrank.request")
REFUSED, FAILED = 400, 500
"""The lowest status of each."""
PROBE = "/readyz"
"""That it says 503 for a while is no failure."""


class RequestLines:
    """Of one process."""

    def __init__(self, per_second: int) -> None:
        """`per_second`: lines of level info and above."""
        self._allowance = Allowance(per_second)

    def answered(self, request_id: str, route: str, status: int, seconds: float, timing: RequestTiming | None) -> None:
        """Whether it is worth a line, and the line."""
        degraded = timing.degraded if timing is not None else ()
        level = logging.INFO if degraded or status >= REFUSED else logging.DEBUG
        if status >= FAILED:
            level = logging.DEBUG if route == PROBE else logging.WARNING
        if not log.isEnabledFor(level):
            return
        fields: dict[str, object] = {"request_id": request_id, "route": route, "status": status}
        fields["ms"] = round(seconds * 1e3, 3)
        if level > logging.DEBUG and not log.isEnabledFor(logging.DEBUG):
            if (left_out := self._allowance.take()) is None:
                return
            if left_out:
                fields["left_out"] = left_out
        if timing is not None and timing.bundle_id:
            fields |= {
                "version": timing.version,
                "arms": dict(timing.arms),
                "bundle": timing.bundle_id,
                "user": timing.user,
                "rung": timing.rung,
                "degraded": timing.degraded,
                "times": timing.server_timing(),
            }
        what = (
            "failed" if status >= FAILED else "refused" if status >= REFUSED else "degraded" if degraded else "answered"
        )
        log.log(level, Said(what, **fields))
