"""The deadline of one request, and what each stage is expected to cost."""

from collections.abc import Sequence
from time import perf_counter

SMOOTHING = 0.1
"""Weight of a new measurement: about the last 20 runs count."""
FORGIVENESS = 0.9
"""A stage left out is thought 10 % cheaper from then on. Otherwise one slow run could keep it out forever."""
ANSWER_MS = 0.5
"""Kept back for ordering, writing the answer and sending it (0.2 ms measured for 10 ads)."""


class Estimates:
    """Running mean of milliseconds by stage and size, sizes in powers of two.

    A stage that was left out is thought cheaper each time, until it is tried: what that run takes is then the estimate,
    as the only one that is fresh. Shared without a lock by worker threads, where there are some: a lost update only
    loses one measurement.
    """

    def __init__(self) -> None:
        self._ms: dict[tuple[str, int], float] = {}
        self._forgiven: set[tuple[str, int]] = set()

    def of(self, stage: str, size: int) -> float:
        """Expected milliseconds of `stage` for `size` ads; from the nearest size measured, 0 when there is none."""
        bucket = size.bit_length()
        if (exact := self._ms.get((stage, bucket))) is not None:
            return exact
        measured = [other for name, other in self._ms if name == stage]
        if not measured:
            return 0.0
        nearest = min(measured, key=lambda other: abs(other - bucket))
        return self._ms[stage, nearest] * (2.0 ** (bucket - nearest) if nearest < bucket else 1.0)

    def observe(self, stage: str, size: int, ms: float) -> None:
        """A run of `stage` took `ms`."""
        key = (stage, size.bit_length())
        known = self._ms.get(key)
        self._ms[key] = ms if known is None or key in self._forgiven else known + SMOOTHING * (ms - known)
        self._forgiven.discard(key)

    def copy(self) -> "Estimates":
        """What is known now, to go on from by itself."""
        made = Estimates()
        made._ms, made._forgiven = dict(self._ms), set(self._forgiven)
        return made

    def scale(self, factor: float) -> None:
        """All of it took `factor` times what was measured."""
        self._ms = {key: ms * factor for key, ms in self._ms.items()}

    def clear(self) -> None:
        """Forget all measurements."""
        self._ms.clear()
        self._forgiven.clear()

    def forgive(self, stage: str, size: int) -> None:
        """`stage` was left out."""
        key = (stage, size.bit_length())
        self._ms[key] = self.of(stage, size) * FORGIVENESS
        self._forgiven.add(key)


class Budget:
    """What one request may spend: what is left of its deadline, and the first rung of the ladder that the load allows.
    Once a stage was left out, all later ones are."""

    def __init__(self, deadline_ms: float, started: float | None = None) -> None:
        self.deadline_ms = deadline_ms
        self.end = (perf_counter() if started is None else started) + (deadline_ms - ANSWER_MS) / 1e3
        self.late = False
        self.step = 0

    @property
    def remaining_ms(self) -> float:
        """Milliseconds left; negative when the deadline has passed."""
        return (self.end - perf_counter()) * 1e3

    def allows(self, estimates: Estimates, stage: str, size: int) -> bool:
        """Whether `stage` for `size` ads is expected to end in time."""
        return self.best(estimates, (stage,), size) is not None

    def best(self, estimates: Estimates, stages: Sequence[str], size: int) -> int | None:
        """Place of the first of `stages`, the best first, that is expected to end in time; None: none is."""
        if self.late:
            return None
        left = self.remaining_ms
        for place, stage in enumerate(stages):
            if left >= estimates.of(stage, size):
                return place
            estimates.forgive(stage, size)
        self.late = True
        return None
