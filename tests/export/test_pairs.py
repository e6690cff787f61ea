"""Which way is faster, by a clock that only the runs themselves move."""

from collections.abc import Callable

import numpy as np
import pytest

from export.pairs import MARGIN, PAIRS, WARM, Paired, compare


class Clock:
    """Stands still but for what runs take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def run(self, name: str, seconds: Callable[[float], float]) -> Callable[[float], None]:
        """A way that takes `seconds(request)`."""

        def taking(request: float) -> None:
            self.order.append(name)
            self.now += seconds(request)

        return taking


def test_times_are_compared_request_by_request() -> None:
    clock = Clock()
    found = compare(clock.run("old", lambda s: s), clock.run("new", lambda s: s * 0.5), [1.0, 100.0, 3.0], clock)
    assert (found.lower, found.ratio, found.upper) == pytest.approx((0.5, 0.5, 0.5))
    assert found.is_faster
    assert not found.is_slower


def test_both_go_first_equally_often_and_the_first_pairs_do_not_count() -> None:
    clock = Clock()
    calls = iter(range(10_000))

    def old(request: float) -> None:
        clock.order.append("old")
        clock.now += 1000.0 if next(calls) < WARM else request

    compare(old, clock.run("new", lambda s: s), [1.0], clock)
    pairs = [tuple(clock.order[i : i + 2]) for i in range(0, len(clock.order), 2)]
    assert len(pairs) == WARM + PAIRS
    assert pairs.count(("old", "new")) == pairs.count(("new", "old"))
    calls = iter(range(10_000))
    assert compare(old, clock.run("new", lambda s: s), [1.0], clock).ratio == 1.0


def test_whoever_runs_first_is_not_mistaken() -> None:
    """A machine on which the second of two runs is slower gives no preference."""
    clock = Clock()

    def way(_: float) -> None:
        clock.order.append("x")
        clock.now += 2.0 if len(clock.order) % 2 == 0 else 1.0

    found = compare(way, way, [1.0], clock)
    assert found.ratio == pytest.approx(1.25)  # between 0.5 and 2
    assert not found.is_faster
    assert not found.is_slower


@pytest.mark.parametrize(
    ("lower", "ratio", "upper", "faster", "slower"),
    [
        (0.9, 0.95, 0.99, True, False),
        (0.9, 0.95, 1.01, False, False),
        (0.97, 0.98, 0.99, False, False),
        (1.01, 1.05, 1.2, False, True),
        (0.99, 1.05, 1.2, False, False),
        (1.0, 1.0, 1.0, False, False),
    ],
)
def test_a_difference_must_be_large_and_steady(
    lower: float, ratio: float, upper: float, faster: bool, slower: bool
) -> None:
    assert MARGIN == 0.03
    found = Paired(ratio, lower, upper)
    assert (found.is_faster, found.is_slower) == (faster, slower)


def test_real_time_passes() -> None:
    found = compare(lambda n: np.ones(n).sum(), lambda n: np.ones(n).sum(), [1000])
    assert 0 < found.lower <= found.ratio <= found.upper
