"""Vectors of bytes: how far they may be off, and what is refused."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.ad_vectors import STEPS, AdVectors
from bundle.errors import ContractError

floats = st.floats(-1e6, 1e6, width=32)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=floats)


@given(tables)
def test_no_number_is_off_by_more_than_half_a_step(vectors: npt.NDArray[np.float32]) -> None:
    made = AdVectors.of(vectors)
    largest = np.abs(vectors).max(axis=1)
    bound = largest[:, None] / STEPS / 2 * 1.0001 + 1e-28
    assert made.codes.dtype == np.int8
    assert (np.abs(made.floats(slice(None)) - vectors) <= bound).all()
    assert np.abs(made.codes.astype(int)).max() <= STEPS


@given(tables, st.integers(0, 99))
def test_products_are_those_of_the_vectors_within_their_error(vectors: npt.NDArray[np.float32], seed: int) -> None:
    random = np.random.default_rng(seed)
    query = np.asarray(random.normal(size=vectors.shape[1]), dtype=np.float32)
    rows = random.integers(0, len(vectors), 20)
    found = AdVectors.of(vectors).products(rows, query)
    bound = np.abs(vectors).max(axis=1) / STEPS / 2 * np.abs(query).sum() * 1.001 + 1e-6
    bound += 1e-5 * (np.abs(vectors) @ np.abs(query))  # of float32 sums
    assert found.dtype == np.float32
    assert (np.abs(found - vectors[rows] @ query) <= bound[rows]).all()


def test_a_row_that_is_not_finite_has_products_that_are_no_numbers() -> None:
    vectors = np.array([[1, 2], [np.inf, 0], [3, np.nan]], dtype=np.float32)
    found = AdVectors.of(vectors).products(np.arange(3), np.ones(2, dtype=np.float32))
    assert np.isfinite(found).tolist() == [True, False, False]


def test_rows_are_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    whole = AdVectors.of(vectors)
    monkeypatch.setattr("bundle.ad_vectors.CHUNK", 7)
    pieces = AdVectors.of(vectors)
    np.testing.assert_array_equal(pieces.codes, whole.codes)
    np.testing.assert_array_equal(pieces.scales, whole.scales)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    AdVectors.of(np.ones((5, 3), dtype=np.float32)).write(tmp_path)
    assert AdVectors.open(tmp_path, 5, 3).codes.shape == (5, 3)
    with pytest.raises(ContractError, match=r"vectors.npy: int8\[5, 3\], the manifest needs int8\[6, 3\]"):
        AdVectors.open(tmp_path, 6, 3)
    np.save(tmp_path / "vectors.npy", np.ones((5, 3), dtype=np.float32))
    with pytest.raises(ContractError, match=r"vectors.npy: float32\[5, 3\], the manifest needs int8\[5, 3\]"):
        AdVectors.open(tmp_path, 5, 3)
