"""The worse bundle of the closed loop's benchmark has seen a tenth of the log."""

import pytest

from benchmarks.closed_loop_world import since
from models.data.batches import count, recent
from tests.market import SPEC, Market


def test_a_tenth_of_the_training_rows_is_left(market: Market) -> None:
    late = recent(market.data, since(SPEC, 0.1))
    assert count(late, "train") / count(market.data, "train") == pytest.approx(0.1, abs=0.02)
    assert count(recent(market.data, since(SPEC, 1.0)), "train") == count(market.data, "train")
