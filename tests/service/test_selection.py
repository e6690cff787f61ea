import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.selection import best_first, count_non_finite, sigmoid, top

SCORES = st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.5, 1.0, 2.0, 3.5]), max_size=30)


@given(SCORES, st.integers(0, 35))
def test_top_is_the_head_of_the_sorted_list(listed: list[float], n: int) -> None:
    scores = np.array(listed, dtype=np.float32)
    order = sorted(range(len(listed)), key=lambda i: (-listed[i] if np.isfinite(listed[i]) else np.inf, i))
    assert top(scores, n).tolist() == sorted(order[:n])
    assert best_first(scores).tolist() == order
    assert count_non_finite(scores) == sum(not np.isfinite(x) for x in listed)


def test_sigmoid_neither_overflows_nor_invents_probabilities() -> None:
    found = sigmoid(np.array([0.0, 800.0, -800.0, np.nan, np.inf, -np.inf, 2.0], dtype=np.float32))
    assert found[:3].tolist() == [0.5, 1.0, 0.0]
    assert np.isnan(found[3:6]).all()
    assert abs(found[6] - 1 / (1 + np.exp(-2.0))) < 1e-12
