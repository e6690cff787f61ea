"""Leaves a failing store alone for a while, so that every request does not wait for the same time-out."""

from collections.abc import Callable
from time import monotonic


class Breaker:
    """Opens after `failures` in a row; after `seconds` one caller may try again."""

    def __init__(self, failures: int, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._failures = failures
        self._seconds = seconds
        self._clock = clock
        self._in_a_row = 0
        self._closed_again_at = 0.0

    def allows(self) -> bool:
        """Whether to call now. While open, True for one caller each `seconds`."""
        if self._in_a_row < self._failures:
            return True
        now = self._clock()
        if now < self._closed_again_at:
            return False
        self._closed_again_at = now + self._seconds
        return True

    def succeeded(self) -> None:
        """The call was answered."""
        self._in_a_row = 0

    def failed(self) -> None:
        """The call failed or came too late."""
        self._in_a_row += 1
        self._closed_again_at = self._clock() + self._seconds
