import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.data.histories import Behaviours, Lists, Sequences, last, ranges

Timed = list[tuple[int, int, int]]


def behaviours(events: Timed) -> Behaviours:
    ordered = sorted(events, key=lambda e: (e[0], e[1]))
    table = np.array(ordered, dtype=np.int64).reshape(-1, 3)
    return Behaviours(table[:, 2:].astype(np.int32), table[:, 0], table[:, 1])


def lists_of(lists: list[list[int]]) -> Lists:
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in lists]))).astype(np.int64)
    return Lists(np.array([v for each in lists for v in each], dtype=np.int32)[:, None], offsets)


def found_by(
    limit: int, user: list[int], time: list[int], lists: Lists | None, timed: Behaviours | None, columns: int = 1
) -> Sequences:
    windows = last(limit, np.array(user), np.array(time), lists, timed, columns)
    halves = [windows.sequences(0, 1), windows.sequences(1, len(user) - 1)]
    whole = windows.sequences(0, len(user))
    assert np.array_equal(whole.values, np.concatenate([half.values for half in halves]))
    return whole


def test_ranges() -> None:
    index, offsets = ranges(np.array([3, 7, 5]), np.array([5, 7, 8]))
    assert index.tolist() == [3, 4, 5, 6, 7]
    assert offsets.tolist() == [0, 2, 2, 5]


def test_a_behaviour_at_the_same_time_is_not_seen() -> None:
    found = found_by(10, [0, 0], [5, 6], None, behaviours([(0, 4, 1), (0, 5, 2), (1, 1, 9)]))
    assert found.values.ravel().tolist() == [1, 1, 2]
    assert found.offsets.tolist() == [0, 1, 3]


def test_the_list_comes_first_and_gives_way_to_what_is_newer() -> None:
    found = found_by(3, [0, 0], [0, 9], lists_of([[1, 2, 3, 4]]), behaviours([(0, 1, 7), (0, 2, 8)]))
    assert found.values.ravel().tolist() == [2, 3, 4, 4, 7, 8]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 5), st.integers(0, 99)), max_size=30),
    st.lists(st.tuples(st.integers(0, 3), st.integers(-6, 6)), min_size=1, max_size=10),
    st.one_of(st.none(), st.lists(st.lists(st.integers(100, 199), max_size=5), min_size=4, max_size=4)),
    st.integers(1, 8),
)
def test_windows_equal_a_plain_loop(
    events: Timed, requests: list[tuple[int, int]], lists: list[list[int]] | None, limit: int
) -> None:
    user, time = [r[0] for r in requests], [r[1] for r in requests]
    found = found_by(limit, user, time, None if lists is None else lists_of(lists), behaviours(events))
    ordered = sorted(events, key=lambda e: (e[0], e[1]))
    for i, (u, t) in enumerate(requests):
        expected = [*(lists[u] if lists else []), *(v for who, when, v in ordered if who == u and when < t)][-limit:]
        assert found.values[found.offsets[i] : found.offsets[i + 1], 0].tolist() == expected


def test_behaviours_of_several_columns_stay_together() -> None:
    timed = Behaviours(np.array([[1, 2], [3, 4]], dtype=np.int32), np.array([0, 0]), np.array([1, 2]))
    found = found_by(5, [0], [3], None, timed, 2)
    assert found.values.tolist() == [[1, 2], [3, 4]]
    assert found_by(5, [0], [3], None, None, 2).values.shape == (0, 2)
