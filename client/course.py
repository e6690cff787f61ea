"""A call on its course: how long it may take, whether it is sent again, and when. Pure: clock and network are the
clients'.

    attempt --> answer                                          done
            --> refused with 429 or 503, or the connection broke
                   and it is safe, fits in the deadline, and the budget has a retry left  --> wait, attempt
                   else                                         the error
            --> the deadline passed                             the error
"""

import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Generic

from client.calls import A, Call, Lost, Place, Received, error_of, read
from client.errors import ArgumentError, ClientError, ProblemError, UnreachableError
from client.timing import Exchange, timings

LONGEST_S = 10.0
"""Of a call without a deadline."""
RESERVE_S = 0.005
"""Of a deadline, kept from the service for the way there and back."""
MOST_ATTEMPTS = 3
EARNED = 0.1
"""Retries that a call earns: what is sent over a client's life is at most 1.1 times what was asked."""
MOST_SAVED = 10
"""Retries that can be saved up: a worker process of the service that dies takes about as many requests with it."""
FIRST_PAUSE_S = 0.01
"""Before the second attempt, where the service does not say when; twice that before the third. Between half of it and
all of it, so that callers that failed together do not come back together."""
TRIED_AGAIN = frozenset({429, 503})


class RetryBudget:
    """A token bucket: calls earn retries. It begins empty, because a thousand callers of one call each would otherwise
    double what a broken service gets. A retry that fails too empties it: then it is no accident of one request."""

    def __init__(self) -> None:
        self._saved = 0.0
        self._lock = Lock()

    def earn(self) -> None:
        """A call begins."""
        with self._lock:
            self._saved = min(self._saved + EARNED, MOST_SAVED)

    def take(self) -> bool:
        """Whether there is a retry to be had; it is gone then."""
        with self._lock:
            if self._saved < 1 - 1e-9:  # ten times 0.1 is a little less than 1
                return False
            self._saved = max(self._saved - 1, 0.0)
            return True

    def failed_again(self) -> None:
        """A retry had no success either."""
        with self._lock:
            self._saved = 0.0


def pause_s(error: ClientError, *, repeatable: bool, attempt: int, draw: float) -> float | None:
    """Seconds to wait before the call may be sent again after its `attempt`-th attempt; None: it may not.

    `draw`: uniform in [0, 1).
    """
    if attempt >= MOST_ATTEMPTS or (error.maybe_taken and not repeatable):
        return None
    if isinstance(error, ProblemError):
        if error.status not in TRIED_AGAIN:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s * (1 + 0.1 * draw)
    elif not isinstance(error, UnreachableError):
        return None
    return float(FIRST_PAUSE_S * 2 ** (attempt - 1) * (1 - draw / 2))


@dataclass(frozen=True, slots=True)
class Wait:
    """Send it again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Sending:
    """One attempt."""

    content: bytes | None
    headers: Mapping[str, str]
    left_s: float
    """Until the deadline."""
    end: float
    """The deadline itself, by the clock that the course is told."""


class Course(Generic[A]):
    """One call under way. Times are seconds of any one clock."""

    def __init__(self, call: Call[A], url: str, deadline_ms: float | None, budget: RetryBudget, now: float) -> None:
        """`deadline_ms`: for all attempts and the waits between them; None: LONGEST_S, and the service's own default
        holds inside. ArgumentError for one that is no time."""
        if deadline_ms is not None and not 0 < deadline_ms < float("inf"):
            raise ArgumentError(f"deadline_ms is {deadline_ms!r}, more than 0 is needed")
        self.call, self.url = call, url
        self.told = deadline_ms is not None
        self.began = now
        self.end = now + (LONGEST_S if deadline_ms is None else deadline_ms / 1e3)
        self.budget = budget
        self.request_id = secrets.token_hex(8)
        self.attempts = 0
        budget.earn()

    def sending(self, now: float) -> Sending:
        """The next attempt. DeadlineError when there is no time for it."""
        left = self.end - now
        if left <= 0:
            raise error_of(
                Lost(f"the deadline of {self._whole_ms} ms passed", late=True, maybe_taken=False), self._place()
            )
        self.attempts += 1
        told_ms = (left - RESERVE_S) * 1e3 if self.told else None
        return Sending(self.call.content(told_ms), {"X-Request-Id": self.request_id}, left, self.end)

    def judge(self, found: Received | Lost, now: float) -> A | Wait:
        """The answer, or when to try again. ClientError when it is over."""
        if isinstance(found, Received) and 200 <= found.status < 300:
            answer = read(self.call.answer, found, self._place())
            header = found.headers.get("server-timing", "")
            named = found.headers.get("x-request-id", self.request_id)
            answer.came_by(Exchange(self.attempts, (now - self.began) * 1e3, timings(header), named))
            return answer
        error = error_of(self._said(found), self._place())
        pause = pause_s(error, repeatable=self.call.repeatable, attempt=self.attempts, draw=random.random())
        if self.attempts > 1:
            self.budget.failed_again()
        if pause is None or now + pause + RESERVE_S >= self.end or not self.budget.take():
            raise error
        return Wait(pause)

    @property
    def _whole_ms(self) -> str:
        return f"{(self.end - self.began) * 1e3:g}"

    def _said(self, found: Received | Lost) -> Received | Lost:
        if isinstance(found, Lost) and found.late:
            return Lost(f"the deadline of {self._whole_ms} ms passed", late=True, maybe_taken=found.maybe_taken)
        return found

    def _place(self) -> Place:
        return Place(f"{self.call.method} {self.url}{self.call.path}", self.request_id, self.attempts)
