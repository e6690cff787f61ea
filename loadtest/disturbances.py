"""What is done to the service while the promised rate goes on: other bundles, an experiment, the loss of Redis."""

import time
from collections.abc import Callable
from typing import Any

from loadtest import arrivals
from loadtest.outcome import between
from loadtest.result import Stretch
from loadtest.runner import Action, Phase
from loadtest.scenarios import Found, Test
from loadtest.slo import judge
from loadtest.store import Store
from loadtest.world import Service, ServiceError, control_of

SWAPS = 4
EXPERIMENT = "load-test"
AGREED_S = 120.0
SETTLED_S = 3
"""After Redis is back: its breaker tries again, users are read anew."""


def swap(test: Test, other: str, admin: dict[str, str]) -> Found:
    """SWAPS changes of the control's bundle, there and back; all of the time is judged."""
    first = control_of(test.service).bundle_id
    length = test.warm_up_s + test.seconds
    actions = tuple(
        Action(
            test.warm_up_s + test.seconds * (i + 0.5) / SWAPS,
            f"bundle {name}",
            _change(test.service, admin, {"action": "serve", "control": {"bundle": name}}),
        )
        for i, name in enumerate([other, first] * (SWAPS // 2))
    )
    phase = Phase("swaps", arrivals.constant(test.slo.rate, length), test.warm_up_s, actions=actions)
    outcome = test.runner.measure(phase)
    return Found([Stretch(phase.name, outcome, judge(outcome, test.slo), list(test.runner.done))])


def ab(test: Test, other: str, admin: dict[str, str]) -> Found:
    """Half of the users get another bundle; latencies by bundle are in the result."""
    arm = {"name": "other", "weight": 0.5, "overrides": {"bundle": other}}
    experiment = {"name": EXPERIMENT, "layer": EXPERIMENT, "salt": EXPERIMENT, "start": 0.0, "share": 1.0}
    start = {"action": "start", "experiment": experiment | {"arms": [arm]}}
    _change(test.service, admin, start)()
    try:
        phase = Phase("two bundles", arrivals.constant(test.slo.rate, test.warm_up_s + test.seconds), test.warm_up_s)
        outcome = test.runner.measure(phase)
    finally:
        _change(test.service, admin, {"action": "stop", "experiment": EXPERIMENT})()
    return Found([Stretch(phase.name, outcome, judge(outcome, test.slo))])


def redis_loss(test: Test, store: Store) -> Found:
    """A third of the time with Redis, a third without, a third with it again. Without it answers may be degraded, and
    that is all."""
    third = test.seconds / 3
    actions = (Action(third, "Redis is gone", store.kill), Action(2 * third, "Redis is back", store.start))
    phase = Phase("loss of Redis", arrivals.constant(test.slo.rate, test.seconds), actions=actions)
    outcome = test.runner.measure(phase)
    before, gone = between(outcome, test.warm_up_s, third), between(outcome, third + 1, 2 * third)
    after = between(outcome, 2 * third + SETTLED_S, test.seconds)
    return Found(
        [
            Stretch(phase.name, outcome, None, list(test.runner.done)),
            Stretch("before", before, judge(before, test.slo)),
            Stretch("without Redis", gone, judge(gone, test.slo.model_copy(update={"degraded_rate": 1.0}))),
            Stretch("after", after, judge(after, test.slo)),
        ]
    )


def _change(service: Service, admin: dict[str, str], change: dict[str, Any]) -> Callable[[], None]:
    """Make the change, and wait until all processes serve it. ServiceError when they do not within AGREED_S."""

    def carry_out() -> None:
        said = {"who": "adrank loadtest", "why": "a load test"}
        version = service.change(change | said, admin)
        end = time.monotonic() + AGREED_S
        while time.monotonic() < end:
            state = service.bundles().state
            serving = [process.serving for process in state.processes]
            if serving and min(serving) >= version and state.agreed >= version:
                return
            for process in state.processes:
                for bundle in process.bundles:
                    if bundle["status"] == "refused":
                        raise ServiceError(f"bundle {bundle['bundle_id']} was refused: {bundle['error']}")
            time.sleep(0.2)
        raise ServiceError(f"version {version} is not served after {AGREED_S:g} s")

    return carry_out
