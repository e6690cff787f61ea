"""One load test under way: generators, a service, requests, and what is shown meanwhile."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadtest.arrivals import Curve
from loadtest.generators import Generators
from loadtest.outcome import Outcome
from loadtest.plan import Plan, Tick

BAR = 24


@dataclass(frozen=True, slots=True)
class Action:
    """Something that is done to the service while the load goes on."""

    at: float
    """Seconds from the start of the curve."""
    name: str
    run: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of load."""

    name: str
    curve: Curve
    warm_up_s: float = 0.0
    closed: int = 0
    unpaced: bool = False
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """An action that was carried out."""

    name: str
    began_s: float
    ended_s: float
    error: str | None


@dataclass(slots=True)
class Runner:
    """Measures phases, one after the other."""

    generators: Generators
    url: str
    requests: Path
    headers: dict[str, str]
    seed: int
    timeout_s: float
    show: bool
    """Whether to draw a line that is rewritten every second, on standard error."""
    done: list[Done] = field(default_factory=list)
    """Actions of the last phase that was measured."""

    def measure(self, phase: Phase) -> Outcome:
        """Offer the phase. Its actions run in a thread of their own, each at its time."""
        self.seed += 1
        self.done = []
        plan = Plan(
            url=self.url,
            curve=phase.curve,
            seed=self.seed,
            requests=str(self.requests),
            begin=0.0,
            warm_up_s=phase.warm_up_s,
            timeout_s=self.timeout_s,
            headers=self.headers | {"Content-Type": "application/json"},
            closed=phase.closed,
            unpaced=phase.unpaced,
        )
        stop = threading.Event()
        acting = threading.Thread(target=self._act, args=(phase.actions, stop), daemon=True)
        acting.start()
        try:
            return self.generators.run(plan, lambda tick: self._display(phase, tick))
        finally:
            stop.set()
            acting.join()
            if self.show:
                print("\r\033[K", end="", file=sys.stderr, flush=True)

    def _act(self, actions: tuple[Action, ...], stop: threading.Event) -> None:
        begin = time.perf_counter()
        for action in sorted(actions, key=lambda action: action.at):
            if stop.wait(max(begin + action.at - time.perf_counter(), 0.0)):
                self.done.append(Done(action.name, action.at, action.at, "the load had ended before its turn came"))
                continue
            began, error = time.perf_counter() - begin, None
            try:
                action.run()
            except OSError as failed:
                error = str(failed)
            self.done.append(Done(action.name, began, time.perf_counter() - begin, error))

    def _display(self, phase: Phase, tick: Tick) -> None:
        if not self.show:
            return
        seconds = phase.curve[-1][0]
        full = min(round(BAR * tick.second / seconds), BAR)
        line = (
            f"{phase.name[:28]:<28} {'█' * full}{'░' * (BAR - full)} {tick.second:>4} of {seconds:.0f} s  "
            f"{tick.answered:>5}/s  p50 {tick.p50_ms:6.1f}  p99 {tick.p99_ms:6.1f} ms  "
            f"failed {tick.failed}  degraded {tick.degraded}  in flight {tick.in_flight}"
        )
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
