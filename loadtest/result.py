"""What a load test found: all stretches of load, what was judged of them, and the one verdict."""

from dataclasses import dataclass, field
from typing import Any

from loadtest.footprint import Footprint
from loadtest.knee import Knee
from loadtest.outcome import Outcome
from loadtest.runner import Done
from loadtest.slo import Judged, Slo, Verdict


@dataclass(frozen=True, slots=True)
class Stretch:
    """A phase, or a part of one, that was looked at."""

    name: str
    outcome: Outcome
    judged: Judged | None
    """None: only reported."""
    actions: list[Done] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """For a file."""
        judged = None if self.judged is None else self.judged.summary()
        actions = [
            {"name": done.name, "began_s": done.began_s, "ended_s": done.ended_s, "error": done.error}
            for done in self.actions
        ]
        return {"name": self.name, "judged": judged, "actions": actions, **self.outcome.summary()}


@dataclass(frozen=True, slots=True)
class Result:
    """A whole load test."""

    scenario: str
    url: str
    bundle: str
    slo: Slo
    seed: int
    stretches: list[Stretch]
    closed: Outcome | None = None
    """The same rate from clients that wait for their answers before they send again."""
    knee: Knee | None = None
    saturated: Outcome | None = None
    """A closed loop that sends without pause: the service always has work."""
    footprint: Footprint | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """None as soon as one stretch could not be judged; otherwise whether all of them hold."""
        verdicts = [each.judged.verdict for each in self.stretches if each.judged is not None]
        failed = any(done.error for each in self.stretches for done in each.actions)
        if not verdicts or Verdict.NONE in verdicts:
            return Verdict.NONE
        return Verdict.FAIL if failed or Verdict.FAIL in verdicts else Verdict.PASS

    def summary(self) -> dict[str, Any]:
        """For a file."""
        return {
            "format": 1,
            "scenario": self.scenario,
            "url": self.url,
            "bundle": self.bundle,
            "seed": self.seed,
            "slo": self.slo.model_dump(),
            "verdict": self.verdict.value,
            "stretches": [each.summary() for each in self.stretches],
            "closed_loop": None if self.closed is None else self.closed.summary(),
            "knee": None if self.knee is None else self.knee.summary(),
            "saturated": None if self.saturated is None else _with_turns(self.saturated),
            "footprint": None if self.footprint is None else self.footprint.model_dump(),
            "notes": self.notes,
        }


def _with_turns(saturated: Outcome) -> dict[str, Any]:
    """With every turn's time, encoded: what `adrank capacity` draws from."""
    turns = saturated.stages.get("turn")
    return saturated.summary() | {"turns": None if turns is None else turns.encode()}
