"""What is done to the service: how load comes, and what happens meanwhile."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from loadtest import arrivals
from loadtest.knee import Knee, find_knee
from loadtest.outcome import Outcome, between
from loadtest.result import Stretch
from loadtest.runner import Phase, Runner
from loadtest.slo import Slo, judge
from loadtest.world import Service

CLIENTS = 8
"""Of the closed loops: enough that the service is never without a request, too few to fill its places in flight."""
PLENTY = 20_000.0
"""Requests a second that an unpaced loop may take at most."""


@dataclass(frozen=True, slots=True)
class Test:
    """What every scenario is told."""

    runner: Runner
    service: Service
    slo: Slo
    seconds: float
    """Of the main stretch."""
    warm_up_s: float
    step_s: float
    """Of one step towards the knee."""
    peak: float
    """Times the rate, at the top of spike and flash."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a scenario measured."""

    stretches: list[Stretch]
    closed: Outcome | None = None
    knee: Knee | None = None
    saturated: Outcome | None = None
    """A closed loop that sends without pause."""


def steady(test: Test) -> Found:
    """The promised rate, and the closed-loop figure beside it."""
    main = _stretch(test, Phase("steady", _constant(test), test.warm_up_s))
    curve = arrivals.constant(test.slo.rate, test.warm_up_s + test.seconds / 3)
    beside = test.runner.measure(Phase("closed loop", curve, test.warm_up_s, closed=CLIENTS))
    return Found([main], beside)


def capacity(test: Test) -> Found:
    """Steps that find the knee, then the promised rate."""
    curve = arrivals.constant(PLENTY, test.warm_up_s + test.step_s / 2)
    reached = test.runner.measure(Phase("closed loop, unpaced", curve, test.warm_up_s, closed=CLIENTS, unpaced=True))

    def step(rate: float, name: str) -> Outcome:
        curve = arrivals.constant(rate, test.warm_up_s + test.step_s)
        return test.runner.measure(Phase(name, curve, test.warm_up_s))

    knee = find_knee(step, max(reached.achieved_rate, 1.0), test.slo)
    return replace(steady(test), knee=knee, saturated=reached)


def spike(test: Test) -> Found:
    """The rate jumps to `peak` times for a fifth of the time: what holds before must hold after."""
    third = test.seconds / 3
    curve = arrivals.burst(test.slo.rate, test.slo.rate * test.peak, test.seconds, third, test.seconds / 5)
    return _around(test, "spike", curve, third, third + test.seconds / 5)


def flash(test: Test) -> Found:
    """The rate grows to `peak` times within a tenth of the time and falls within a fifth."""
    third, rise, fall = test.seconds / 3, test.seconds / 10, test.seconds / 5
    curve = arrivals.flash_crowd(test.slo.rate, test.slo.rate * test.peak, test.seconds, third, rise, fall)
    return _around(test, "flash", curve, third, third + rise + fall)


def diurnal(test: Test) -> Found:
    """A day: from a fifth of the promised rate up to it and back."""
    return Found([_stretch(test, Phase("diurnal", arrivals.diurnal(test.slo.rate / 5, test.slo.rate, test.seconds)))])


def soak(test: Test) -> Found:
    """The promised rate for long: the last third must hold by itself."""
    phase = Phase("soak", _constant(test), test.warm_up_s)
    whole = _stretch(test, phase)
    last = between(whole.outcome, test.warm_up_s + test.seconds * 2 / 3, test.warm_up_s + test.seconds)
    return Found([whole, Stretch("the last third", last, judge(last, test.slo))])


SCENARIOS: dict[str, Callable[[Test], Found]] = {
    "capacity": capacity,
    "steady": steady,
    "spike": spike,
    "flash": flash,
    "diurnal": diurnal,
    "soak": soak,
}


def _constant(test: Test) -> arrivals.Curve:
    return arrivals.constant(test.slo.rate, test.warm_up_s + test.seconds)


def _stretch(test: Test, phase: Phase) -> Stretch:
    outcome = test.runner.measure(phase)
    return Stretch(phase.name, outcome, judge(outcome, test.slo), list(test.runner.done))


def _around(test: Test, name: str, curve: arrivals.Curve, begin: float, end: float) -> Found:
    """Judge what lies before `begin` and after `end` and as much again as the load needs to drain."""
    outcome = test.runner.measure(Phase(name, curve))
    settled = end + (test.seconds - end) / 4
    before = between(outcome, test.warm_up_s, begin)
    after = between(outcome, settled, test.seconds)
    return Found(
        [
            Stretch(name, outcome, None),
            Stretch("before", before, judge(before, test.slo)),
            Stretch("after", after, judge(after, test.slo)),
        ]
    )
