"""Vectors of bytes and half bytes: how far they may be off, and what is refused."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.ad_vectors import AdVectors
from bundle.errors import ContractError
from bundle.rounding import Coded

floats = st.floats(-1e6, 1e6, width=32)
tables = arrays.arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 6)), elements=floats)


STEPS: dict[Coded, int] = {"int8": 128, "int4": 8}


@pytest.mark.parametrize("stored", STEPS)
@given(vectors=tables)
def test_no_number_is_off_by_more_than_a_step(vectors: npt.NDArray[np.float32], stored: Coded) -> None:
    made = AdVectors.of(vectors, stored)
    bound = np.abs(vectors).max(axis=1)[:, None] / STEPS[stored] * 1.0001 + 1e-28
    found = made.floats(slice(None))
    assert (np.abs(found - vectors) <= bound).all()
    np.testing.assert_array_equal(made.floats(0), found[0])
    np.testing.assert_array_equal(made.floats(np.array([0, 0])), found[[0, 0]])


@pytest.mark.parametrize("stored", STEPS)
@given(vectors=tables, seed=st.integers(0, 99))
def test_products_are_those_of_the_vectors_as_they_are_stored(
    vectors: npt.NDArray[np.float32], seed: int, stored: Coded
) -> None:
    random = np.random.default_rng(seed)
    query = np.asarray(random.normal(size=vectors.shape[1]), dtype=np.float32)
    rows, made = random.integers(0, len(vectors), 20), AdVectors.of(vectors, stored)
    found, exact = made.products(rows, query), made.floats(rows).astype(np.float64) @ query.astype(np.float64)
    bound = 3e-5 * np.abs(vectors).max(axis=1) * np.abs(query).sum() + 1e-28  # of float32 sums
    assert found.dtype == np.float32
    assert (np.abs(found - exact) <= bound[rows]).all()


def test_a_byte_or_half_a_byte_a_number() -> None:
    vectors = np.ones((4, 33), dtype=np.float32)
    sizes = {stored: AdVectors.of(vectors, stored) for stored in STEPS}
    assert [each.codes.nbytes + each.scales.nbytes for each in sizes.values()] == [4 * 37, 4 * 21]


@pytest.mark.parametrize("stored", STEPS)
def test_a_row_that_is_not_finite_has_products_that_are_no_numbers(stored: Coded) -> None:
    vectors = np.array([[1, 2], [np.inf, 0], [3, np.nan]], dtype=np.float32)
    found = AdVectors.of(vectors, stored).products(np.arange(3), np.ones(2, dtype=np.float32))
    assert np.isfinite(found).tolist() == [True, False, False]


@pytest.mark.parametrize("stored", STEPS)
def test_rows_in_another_order_keep_their_vectors(stored: Coded) -> None:
    vectors = np.random.default_rng(1).normal(size=(9, 5)).astype(np.float32)
    order = np.random.default_rng(2).permutation(9)
    made = AdVectors.of(vectors, stored)
    np.testing.assert_array_equal(made.of_rows(order).floats(slice(None)), made.floats(order))


@pytest.mark.parametrize("stored", STEPS)
def test_rows_are_the_same_in_pieces(stored: Coded, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
    whole = AdVectors.of(vectors, stored)
    monkeypatch.setattr("bundle.ad_vectors.CHUNK", 7)
    pieces = AdVectors.of(vectors, stored)
    np.testing.assert_array_equal(pieces.codes, whole.codes)
    np.testing.assert_array_equal(pieces.scales, whole.scales)


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    AdVectors.of(np.ones((5, 3), dtype=np.float32)).write(tmp_path)
    assert AdVectors.open(tmp_path, 5, 3, "int8").codes.shape == (5, 3)
    with pytest.raises(ContractError, match=r"vectors.npy: int8\[5, 3\], the manifest needs int8\[6, 3\]"):
        AdVectors.open(tmp_path, 6, 3, "int8")
    with pytest.raises(ContractError, match=r"vectors.npy: int8\[5, 3\], the manifest needs uint8\[5, 2\]"):
        AdVectors.open(tmp_path, 5, 3, "int4")
    AdVectors.of(np.ones((5, 3), dtype=np.float32), "int4").write(tmp_path)
    opened = AdVectors.open(tmp_path, 5, 3, "int4")
    np.testing.assert_array_equal(opened.floats(slice(None)), np.ones((5, 3)))
    with pytest.raises(ContractError, match=r"vectors.npy: uint8\[5, 2\], the manifest needs int8\[5, 3\]"):
        AdVectors.open(tmp_path, 5, 3, "int8")
    np.save(tmp_path / "vectors.npy", np.ones((5, 3), dtype=np.float32))
    with pytest.raises(ContractError, match=r"vectors.npy: float32\[5, 3\], the manifest needs int8\[5, 3\]"):
        AdVectors.open(tmp_path, 5, 3, "int8")
