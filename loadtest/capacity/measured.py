"""What `adrank loadtest --json FILE` measured, as far as the model needs it."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadtest.capacity.errors import CapacityError
from loadtest.footprint import Footprint
from loadtest.histograms import Histogram
from loadtest.saturation import PROCESSOR
from loadtest.slo import Slo

Seconds = npt.NDArray[np.float64]
LEAST_TURNS = 100
"""So that a 99th percentile of what a turn takes is one."""


class _Part(BaseModel):
    """Only what is read here; a load test writes more."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Latency(_Part):
    """Milliseconds."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


class Step(_Part):
    """One rate on the way to the knee."""

    rate: float = Field(gt=0)
    verdict: str
    latency_ms: Latency
    turn_ms: Latency


class Knee(_Part):
    """The highest rate at which everything held."""

    rate: float | None
    bounded: bool
    steps: list[Step] = Field(min_length=1)

    @property
    def slowest(self) -> Step:
        """The one with the lowest rate."""
        return min(self.steps, key=lambda step: step.rate)


class Saturated(_Part):
    """The closed loop without pause."""

    achieved_rate: float = Field(gt=0)
    generator_processor: float
    stages_ms: dict[str, Latency]
    turns: str
    """Histogram of the turns' milliseconds."""


class LoadTest(_Part):
    """The file."""

    bundle: str
    slo: Slo
    knee: Knee
    saturated: Saturated
    footprint: Footprint


@dataclass(frozen=True, slots=True)
class Measured:
    """A load test that the model can be made of."""

    source: str
    """Where it was read, for messages."""
    test: LoadTest
    turns_s: Seconds
    """float64[turns]: what each took while the service always had work."""

    @property
    def busy_s(self) -> float:
        """Seconds of a process that a request takes, all included: processes ÷ requests a second, when none is idle."""
        return self.test.footprint.workers / self.test.saturated.achieved_rate

    @property
    def slowness(self) -> tuple[tuple[float, float], ...]:
        """How many times as long a turn takes as without pause, at shares of the rate without pause, ascending: after a
        pause caches are cold and the core has to wake up. Steps of fewer than LEAST_TURNS tell nothing."""
        busy_s, turn_ms = self.busy_s, float(self.turns_s.mean()) * 1e3
        told = (step for step in self.test.knee.steps if step.turn_ms.count >= LEAST_TURNS)
        steps = sorted(told, key=lambda step: step.rate)
        shares = [step.rate / self.test.footprint.workers * busy_s for step in steps]
        times = [step.turn_ms.mean / turn_ms for step in steps]
        return (*(pair for pair in zip(shares, times, strict=True) if pair[0] < 1), (1.0, 1.0))

    @property
    def finerank_share(self) -> float:
        """Of the turns' time."""
        stages = self.test.saturated.stages_ms
        if (fine := stages.get("finerank")) is None:
            return 0.0
        turns = stages["turn"]
        return min(fine.mean * fine.count / (turns.mean * turns.count), 1.0)


def read_measured(path: Path) -> Measured:
    """CapacityError names what the file lacks; OSError when it cannot be read."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CapacityError(f"{path}: not JSON: {error}") from error
    lacking = [name for name in ("knee", "saturated", "footprint") if not (isinstance(read, dict) and read.get(name))]
    if lacking:
        raise CapacityError(
            f"{path}: no {' and no '.join(lacking)}: what is needed is the --json of an `adrank loadtest` of the "
            "scenario capacity"
        )
    try:
        test = LoadTest.model_validate(read)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CapacityError(f"{path}: {wrong}") from error
    return _checked(str(path), test)


def _checked(source: str, test: LoadTest) -> Measured:
    saturated = test.saturated
    if saturated.generator_processor > PROCESSOR:
        raise CapacityError(
            f"{source}: the generator used {saturated.generator_processor:.0%} of a core in the closed loop, "
            f"{PROCESSOR:.0%} allowed: it found its own limit, not the service's; measure with --processes"
        )
    counted = Histogram.decode(saturated.turns).values()
    turns = np.repeat([ms / 1e3 for ms, _ in counted], [count for _, count in counted])
    if len(turns) < LEAST_TURNS:
        raise CapacityError(f"{source}: {len(turns)} turns in the closed loop, {LEAST_TURNS} at least are needed")
    measured = Measured(source, test, turns)
    if (mean := float(turns.mean())) >= measured.busy_s:
        raise CapacityError(
            f"{source}: a turn takes {mean * 1e3:.2f} ms, but {test.footprint.workers} processes answered a request "
            f"every {1e3 / saturated.achieved_rate:.2f} ms: the model knows processes that rank one request at a time"
        )
    return measured
