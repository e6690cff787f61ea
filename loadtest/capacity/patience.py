"""What a process leaves out: by the deadline of each request, and by the load, as the service does.

The same rules as the service's own (its budget, its ladder and its load gate, described in docs/operations.md), told by
the time of the simulation. Two things are simpler: of the stages only the fine-ranker is left out, and its expected
time is one running mean, whatever the number of ads.
"""

from loadtest.capacity.costs import Rules

KEPT_BACK_S = 0.0005
SMOOTHING = 0.1
FORGIVENESS = 0.9
DOWN, LAST, UP = 0.5, 0.8, 0.125


class Patience:
    """One process's means, and how far down the ladder it is."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._step, self._hold_until, self._turn = 0, 0, 0
        self._fine: dict[int, float] = {}
        self._turns: dict[int, float] = {}
        self._forgiven: set[int] = set()

    def turn(self, before_s: float, fine_s: float, waited_s: float, waiting: int) -> tuple[float, bool]:
        """Seconds of a turn whose stages before the fine-ranker take `before_s`, and the best fine-ranker `fine_s`, and
        whether something was left out or replaced. `waited_s`: since the request was taken in; `waiting`: others in
        line."""
        self._turn += 1
        step = self._judge(waiting)
        rung = self._choose(step, waited_s + before_s)
        if rung is None:
            return before_s, True
        fine_s *= self._rules.rungs[rung]
        known = self._fine.get(rung)
        fresh = known is None or rung in self._forgiven
        self._fine[rung] = fine_s if fresh or known is None else known + SMOOTHING * (fine_s - known)
        self._forgiven.discard(rung)
        whole = before_s + fine_s
        mean = self._turns.get(rung, whole)
        self._turns[rung] = mean + SMOOTHING * (whole - mean)
        return whole, rung > 0

    def _choose(self, step: int, spent_s: float) -> int | None:
        left = self._rules.deadline_s - KEPT_BACK_S - spent_s
        for rung in range(step, len(self._rules.rungs)):
            if left >= self._fine.get(rung, 0.0):
                return rung
            self._fine[rung] = self._fine[rung] * FORGIVENESS
            self._forgiven.add(rung)
        return None

    def _judge(self, waiting: int) -> int:
        rungs = len(self._rules.rungs)
        if rungs == 1:
            return 0
        if self._turn <= self._hold_until:
            return self._step
        bound = DOWN if self._step + 1 < rungs else LAST
        if self._step < rungs and self._pressure(waiting, self._step) > bound:
            self._step += 1
            self._hold_until = self._turn + waiting
        elif self._step and self._pressure(waiting, self._step - 1) < UP:
            self._step -= 1
        return self._step

    def _pressure(self, waiting: int, rung: int) -> float:
        in_time = waiting * self._turns.get(rung, 0.0) / self._rules.deadline_s
        return max(in_time, waiting / self._rules.max_in_flight)
