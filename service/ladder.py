"""Which fine-ranker of a bundle's ladder scores a request: the best that load and deadline allow."""

from dataclasses import dataclass
from typing import Literal

from bundle.ladder import FULL
from bundle.manifest import FinerankStage, Rung
from service.budget import Budget, Estimates
from service.errors import SettingsError
from service.load_gate import LoadGate
from service.scorer import Graph

STAGE = "finerank"
TURN = "turn"
"""What a whole request took, by rung: among the estimates of stages."""
AUTO, OFF = "auto", "off"
Why = Literal["load", "deadline"]


@dataclass(frozen=True, slots=True)
class LoadedRung:
    """One fine-ranker with its session."""

    name: str
    stage: FinerankStage | Rung
    graph: Graph

    @property
    def key(self) -> str:
        """Its name among estimates and metrics: `finerank`, or `finerank.NAME` for a further rung."""
        return key_of(self.name)


@dataclass(frozen=True, slots=True)
class Ladder:
    """The rungs that may run, best first, and how far down the load drives requests."""

    rungs: tuple[LoadedRung, ...]
    gate: LoadGate

    def judge(self, waiting: int, turn: int, lanes: int, deadline_ms: float, estimates: Estimates) -> int:
        """The first rung for the request whose turn it is, the `turn`-th of the process, `waiting` others behind it for
        `lanes` turns at a time. A single rung is left by deadlines alone."""
        if len(self.rungs) == 1:
            return 0
        return self.gate.judge(waiting, turn, deadline_ms, lambda step: self.turn_ms(step, estimates) / lanes)

    def turn_ms(self, step: int, estimates: Estimates) -> float:
        """Expected milliseconds of a request that is scored by the rung at `step`."""
        return estimates.of(turn_of(self.rungs[step].name), 1)

    def choose(
        self, budget: Budget, estimates: Estimates, size: int
    ) -> tuple[LoadedRung, Why | None] | tuple[None, Why]:
        """The rung for `size` ads, and why it is not the best one there is; None: no fine-ranker."""
        if budget.step >= len(self.rungs) and not budget.late:
            budget.late = True
            return None, "load"
        allowed = self.rungs[budget.step :]
        if (place := budget.best(estimates, [rung.key for rung in allowed], size)) is None:
            return None, "deadline"
        why: Why | None = "deadline" if place else "load" if budget.step else None
        return allowed[place], why


def key_of(rung: str) -> str:
    """See LoadedRung.key."""
    return STAGE if rung == FULL else f"{STAGE}.{rung}"


def turn_of(rung: str) -> str:
    """The estimates' name of whole requests scored by this rung."""
    return f"{TURN}.{rung}"


def allowed_rungs(stage: FinerankStage, setting: str) -> list[tuple[str, FinerankStage | Rung]]:
    """Names and descriptions of the rungs that the setting `ladder` lets run. SettingsError when there is no such."""
    every: list[tuple[str, FinerankStage | Rung]] = [(FULL, stage), *((each.name, each) for each in stage.ladder)]
    if setting == AUTO:
        return every
    wanted = FULL if setting == OFF else setting
    if found := [each for each in every if each[0] == wanted]:
        return found
    names = ", ".join([AUTO, OFF, *(name for name, _ in every)])
    raise SettingsError(f"ladder is {setting!r}, the bundle knows {names}")
