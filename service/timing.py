"""The one record of what a request did and how long it took: for the answer, header, metrics and log."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.served_log import Inputs


@dataclass(slots=True)
class StageTime:
    """One stage of the cascade: how many ads it saw and kept."""

    name: str
    seen: int
    kept: int
    ms: float = 0.0
    degraded: str | None = None
    note: str | None = None
    key: str = ""
    """What metrics call it; its name where this is empty."""


@dataclass(slots=True)
class RequestTiming:
    """One request. Written by one task or thread at a time."""

    started: float = field(default_factory=perf_counter)
    waits: dict[str, float] = field(default_factory=dict)
    """What is not a stage: reading user features, waiting for its turn, which ads are eligible. Name -> ms."""
    stages: list[StageTime] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    """`what: why`, in the order in which it happened."""
    non_finite: dict[str, int] = field(default_factory=dict)
    """Stage -> scores that were NaN or infinite."""
    version: int = 0
    """Of the desired state that served it; 0: none did."""
    arms: Mapping[str, str] = field(default_factory=dict)
    """Experiment -> arm, of all that the user is in."""
    dealt: Mapping[str, str] = field(default_factory=dict)
    """Those of `arms` that the hash dealt: what counts for an experiment."""
    bundle_id: str = ""
    user: str = ""
    rung: str | None = None
    """The fine-ranker that gave the scores; None: no fine-ranker did."""
    inputs: "Inputs | None" = None
    """What the request was answered from, for the served log."""
    ladder_step: int = 0
    """The first rung that the load allowed."""

    @property
    def total_ms(self) -> float:
        """Milliseconds since the request was accepted."""
        return (perf_counter() - self.started) * 1e3

    @contextmanager
    def wait(self, name: str) -> Iterator[None]:
        """Time a part that is not a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.waits[name] = (perf_counter() - start) * 1e3

    @contextmanager
    def stage(self, name: str, seen: int) -> Iterator[StageTime]:
        """Time a stage; the body sets what it kept."""
        stage = StageTime(name, seen, seen)
        start = perf_counter()
        yield stage
        stage.ms = (perf_counter() - start) * 1e3
        self.stages.append(stage)

    def skip(self, name: str, seen: int, reason: str) -> None:
        """A stage that was left out."""
        self.stages.append(StageTime(name, seen, seen, degraded=reason))
        self.degraded.append(f"{name}: {reason}")

    def scored_by_rung(self, stage: StageTime, rung: str, key: str, why: str | None) -> None:
        """`stage` was this fine-ranker's; `why` it was not the best there is, None where it was."""
        self.rung, stage.key = rung, key
        if why is not None:
            stage.note = f"{rung}, {why}"
            self.degraded.append(f"{stage.name}: {rung}, {why}")

    def skip_empty(self, *names: str) -> None:
        """Stages that had nothing to do."""
        self.stages.extend(StageTime(name, 0, 0) for name in names)

    def count(self, stage: str, non_finite: int) -> None:
        """Note scores of `stage` that were NaN or infinite."""
        if non_finite:
            self.non_finite[stage] = self.non_finite.get(stage, 0) + non_finite

    def server_timing(self) -> str:
        """The Server-Timing header: milliseconds of every part, then the total. A fine-ranker other than
        the full one is described by its rung."""
        parts = [*self.waits.items(), *((self._part(s), s.ms) for s in self.stages), ("total", self.total_ms)]
        return ", ".join(f"{name};dur={ms:.3f}" for name, ms in parts)

    def _part(self, stage: StageTime) -> str:
        return stage.name if stage.key in ("", stage.name) else f'{stage.name};desc="{self.rung}"'
