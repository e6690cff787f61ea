import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.counting import Counts, NumberSample, edges_of, moments_of


def test_counts_over_pieces_with_nulls_and_lists() -> None:
    counts = Counts()
    counts.add(pl.Series(["a", "b", None, "a"]))
    counts.add(pl.Series([["a", "c"], [], ["c"]]))
    assert counts.total().to_dict(as_series=False) == {"value": ["a", "b", "c"], "count": [3, 1, 2]}


def test_nothing_counted_has_the_type_asked_for() -> None:
    counts = Counts()
    counts.add(pl.Series([], dtype=pl.String))
    assert counts.total(pl.String()).schema == {"value": pl.String, "count": pl.Int64}


def test_counts_settle_so_that_memory_follows_distinct_values() -> None:
    counts = Counts()
    for _ in range(30):
        counts.add(pl.Series(np.arange(100_000)))
    assert sum(len(frame) for frame in counts._frames) <= 700_000
    assert counts.total()["count"].unique().to_list() == [30]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.booleans())
def test_a_sample_does_not_depend_on_the_pieces(lengths: list[int], log: bool) -> None:
    rows = sum(lengths)
    x = np.random.default_rng(rows).lognormal(size=rows)
    x[::7] = np.nan
    whole, pieces = NumberSample(log=log, size=20), NumberSample(log=log, size=20)
    whole.add(x, np.arange(rows))
    start = 0
    for length in lengths:
        pieces.add(x[start : start + length], np.arange(start, start + length))
        start += length
    assert sorted(whole._values) == sorted(pieces._values)
    assert whole.edges(4) == pieces.edges(4)
    finite = x[np.isfinite(x)]
    y = np.log1p(finite) if log else finite
    assert pieces.count == finite.size
    if finite.size:
        assert pieces.mean == pytest.approx(y.mean(), abs=1e-9)
        assert pieces.std == pytest.approx(y.std() or 1.0, rel=1e-6, abs=1e-9)


def test_a_sample_is_bounded_and_uniform() -> None:
    sample = NumberSample(size=5_000)
    for start in range(0, 200_000, 10_000):
        rows = np.arange(start, start + 10_000)
        sample.add(rows.astype(np.float64), rows)
    assert len(sample._values) == 5_000
    # Quartiles of 0..199,999 from 5,000 draws: standard error 0.6 % of the range, 4 of them allowed.
    assert np.allclose(sample.edges(4), [50_000, 100_000, 150_000], atol=5_000)


def test_another_seed_is_another_sample() -> None:
    rows = np.arange(1_000)
    first, second = NumberSample(size=10), NumberSample(size=10, seed=1)
    for sample in (first, second):
        sample.add(rows.astype(np.float64), rows)
    assert sorted(first._values) != sorted(second._values)


def test_edges_split_equal_masses() -> None:
    assert edges_of(np.arange(16.0), np.ones(16, dtype=np.int64), 4) == (4.0, 8.0, 12.0)


def test_edges_are_distinct_and_leave_no_empty_first_interval() -> None:
    values, counts = np.array([0.0, 1.0, 2.0]), np.array([80, 10, 10])
    assert edges_of(values, counts, 16) == (1.0, 2.0)
    assert edges_of(np.array([3.0]), np.array([10]), 4) == ()
    assert edges_of(np.array([np.nan, np.inf]), np.array([1, 1]), 4) == ()


def test_edges_weigh_values_by_their_counts() -> None:
    assert edges_of(np.array([1.0, 2.0, 3.0]), np.array([1, 1, 98]), 2) == (3.0,)
    assert edges_of(np.array([1.0, 2.0, 3.0]), np.array([0, 1, 1]), 2) == (3.0,)


def test_moments() -> None:
    mean, std = moments_of(np.array([1.0, 3.0, np.nan, 100.0]), np.array([1, 3, 5, 0]), log=False)
    assert mean == pytest.approx(2.5)
    assert std == pytest.approx(np.std([1, 3, 3, 3]))
    assert moments_of(np.zeros(0), np.zeros(0, dtype=np.int64), log=True) == (0.0, 1.0)
    assert moments_of(np.array([5.0]), np.array([2]), log=False) == (5.0, 1.0)
