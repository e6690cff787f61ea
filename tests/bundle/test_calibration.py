"""A bundle's correction of logits: what it computes, that it never changes an order, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bundle.calibration import Calibration

STEPS = Calibration(method="isotonic", logits=(-2.0, 0.0, 1.0), calibrated=(-3.0, -1.0, 4.0), slope=0.5)


def test_lines_between_the_knots_and_of_the_slope_outside() -> None:
    x = np.array([-4.0, -2.0, -1.0, 0.0, 0.5, 1.0, 3.0], dtype=np.float32)
    np.testing.assert_allclose(STEPS.of(x), [-4.0, -3.0, -2.0, -1.0, 1.5, 4.0, 5.0])


def test_one_knot_is_a_straight_line() -> None:
    line = Calibration(method="platt", logits=(0.0,), calibrated=(0.25,), slope=2.0)
    np.testing.assert_allclose(line.of(np.array([-3.0, 0.0, 1.5])), [-5.75, 0.25, 3.25])


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=30))
def test_no_order_changes(values: list[float]) -> None:
    x = np.unique(np.round(values, 6))
    assert (np.diff(STEPS.of(x)) > 0).all()


def test_what_is_not_finite_stays_so() -> None:
    found = STEPS.of(np.array([np.nan, np.inf, -np.inf]))
    assert np.isnan(found[0])
    assert found[1] == np.inf
    assert found[2] == -np.inf
    assert STEPS.of(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"logits": (0.0, 0.0, 1.0)}, "logits must rise"),
        ({"calibrated": (0.0, 2.0, 1.0)}, "calibrated must rise"),
        ({"calibrated": (0.0, 1.0)}, "3 logits, 2 calibrated"),
        ({"logits": (0.0, 1.0, float("inf"))}, r"logits.2\n.*finite number"),
        ({"slope": 0.0}, "slope"),
        ({"slope": float("inf")}, r"slope\n.*finite number"),
        ({"logits": (), "calibrated": ()}, "logits"),
        ({"method": "magic"}, "method"),
        ({"knots": 3}, "knots"),
    ],
)
def test_what_is_no_rising_function_is_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        Calibration.model_validate(STEPS.model_dump() | change)


def test_it_survives_json() -> None:
    assert Calibration.model_validate_json(STEPS.model_dump_json()) == STEPS
