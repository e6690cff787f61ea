"""How far down the ladder of fine-rankers the load drives all requests, before deadlines are missed.

Requests are ranked one a turn, so what is coming is known: those that wait now will need as many turns. The pressure is
the larger of two shares:

    time      waiting × milliseconds of a turn ÷ deadline     how much of a deadline the last of them will have waited
    places    waiting ÷ max_in_flight                         how near the service is to refusing requests

Above DOWN the next rung is taken (below the last one: above LAST), and no further step before those that waited have
had their turn, whichever bundle ranks them: only then is it seen what the last one brought. Below UP, reckoned with the
dearer turns of the rung above, that rung is taken again. The distance between the two keeps a constant load from
changing the rung with every request: in between, the queue has to grow by more than a third of a deadline. A load
between what two rungs sustain is answered by both, in stretches.
"""

from collections.abc import Callable
from threading import Lock

DOWN = 0.5
"""Half a deadline is left for the turn itself, for reading the request and for what a mean does not tell."""
LAST = 0.8
"""The same for the step below the last rung: a cheaper fine-ranker costs little quality, none costs much. At twice what
the full rung sustains 24 % of the requests were not fine-ranked with 0.5, 13.5 % with 0.8 (`adrank bench ladder`)."""
UP = 0.125
SMOOTHING = 0.1
"""Weight of a request's deadline in their running mean: requests of one caller with little patience are helped by the
choice by deadline, they do not drive the others down."""


class LoadGate:
    """The first rung that the load allows, of `steps` rungs; `steps` itself: none, the pre-rank order is answered."""

    def __init__(self, steps: int, places: int) -> None:
        self.steps, self.places = steps, places
        self.step = 0
        self._hold_until = 0
        self._deadline_ms: float | None = None
        self._lock = Lock()
        """Worker threads, where there are some, take their turns at the same time."""

    def judge(self, waiting: int, turn: int, deadline_ms: float, turn_ms: Callable[[int], float]) -> int:
        """The step for the request whose turn it is, the `turn`-th of the process: a bundle that serves one request in
        ten must not hold on to a step ten times as long. `waiting`: requests behind it; `turn_ms`: expected
        milliseconds of a turn at a step."""
        with self._lock:
            known = self._deadline_ms
            self._deadline_ms = deadline_ms if known is None else known + SMOOTHING * (deadline_ms - known)
            if turn <= self._hold_until:
                return self.step
            if self.step < self.steps and self._pressure(waiting, turn_ms(self.step)) > self._bound():
                self.step += 1
                self._hold_until = turn + waiting
            elif self.step and self._pressure(waiting, turn_ms(self.step - 1)) < UP:
                self.step -= 1
            return self.step

    def _bound(self) -> float:
        return DOWN if self.step + 1 < self.steps else LAST

    def _pressure(self, waiting: int, turn_ms: float) -> float:
        assert self._deadline_ms is not None
        return max(waiting * turn_ms / self._deadline_ms, waiting / self.places)
