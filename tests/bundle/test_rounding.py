"""Rounding to codes: how far a number may be off, that it is found again bit for bit, and what a row takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bundle.rounding import BITS, SMALLEST, Coded, Float32, pack, quantise, row_bytes, unpack

FORMS: tuple[Coded, ...] = ("int8", "int4")
whatever = st.floats(width=32, allow_nan=False, allow_infinity=False)
tables = arrays.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(0, 7)), elements=whatever)
HARD = np.array(
    [
        [0, -0.0, 0],
        [1e-45, -1e-45, 0],
        [SMALLEST, -SMALLEST, SMALLEST / 2],
        [8 * SMALLEST, 7.5 * SMALLEST, -8 * SMALLEST],
        [128 * SMALLEST, 64.5 * SMALLEST, -127.5 * SMALLEST],
        [3.4028235e38, -3.4028235e38, 1],
        [1, -1, 0.5],
        [-1, 1, 0.99999994],
        [np.float32(1 / 3), np.float32(-1 / 7), 1e-7],
    ],
    dtype=np.float32,
)


def restored(values: Float32, stored: Coded) -> Float32:
    codes, scales = quantise(values, stored)
    assert codes.dtype == np.int8
    assert scales.shape == (len(values),)
    assert scales.dtype == np.float32
    assert (codes >= -(2 ** (BITS[stored] - 1))).all()
    assert (codes < 2 ** (BITS[stored] - 1)).all()
    return codes * scales[:, None]


def test_by_hand() -> None:
    codes, scales = quantise(np.array([[0.25, -2, 1.6, 2], [0.8, 0.1, -0.4, 0]], dtype=np.float32), "int4")
    assert scales.tolist() == [-0.25, np.float32(-0.1)], "2 is the positive one of two of the same size"
    assert codes.tolist() == [[-1, 7, -6, -8], [-8, -1, 4, 0]]
    assert pack(codes).tolist() == [[7 + 16 * 2, 15], [16 * 12, 7 + 16 * 8]]


@pytest.mark.parametrize("stored", FORMS)
@given(values=tables)
def test_a_number_is_off_by_half_a_step_or_by_one_at_the_other_end(values: Float32, stored: Coded) -> None:
    n = 2 ** (BITS[stored] - 1)
    step = np.maximum(np.abs(values).max(axis=1, keepdims=True, initial=0) / n, SMALLEST)
    share = np.abs(values) / step
    error = np.abs(restored(values, stored).astype(np.float64) - values) / step
    assert (error <= np.where(share <= n - 0.5, 0.5, 1.0) + 1e-5).all()
    assert not restored(values, stored)[values == 0].any()


@pytest.mark.parametrize("stored", FORMS)
@given(values=tables)
def test_what_was_rounded_is_found_again_bit_for_bit(values: Float32, stored: Coded) -> None:
    for each in (values, HARD):
        codes, scales = quantise(each, stored)
        again, same = quantise(codes * scales[:, None], stored)
        np.testing.assert_array_equal(again * same[:, None], codes * scales[:, None])
        some = codes.any(axis=1)
        np.testing.assert_array_equal(again, codes)
        np.testing.assert_array_equal(same[some], scales[some])


@given(arrays.arrays(np.int8, st.tuples(st.integers(0, 5), st.integers(0, 9)), elements=st.integers(-8, 7)))
def test_packed_codes_are_unpacked(codes: np.ndarray) -> None:
    packed = pack(codes)
    assert packed.shape == (len(codes), -(-codes.shape[1] // 2))
    assert packed.dtype == np.uint8
    np.testing.assert_array_equal(unpack(packed, codes.shape[1]), codes)
    if len(codes):
        np.testing.assert_array_equal(unpack(packed[0], codes.shape[1]), codes[0])


@pytest.mark.parametrize(("d", "int8", "int4"), [(16, 20, 12), (32, 36, 20), (64, 68, 36), (33, 37, 21), (1, 5, 5)])
def test_bytes_of_a_row(d: int, int8: int, int4: int) -> None:
    assert [row_bytes(stored, d) for stored in ("fp32", "fp16", "int8", "int4")] == [4 * d, 2 * d, int8, int4]
    values = np.ones((3, d), dtype=np.float32)
    for stored, expected in (("int8", int8), ("int4", int4)):
        codes, scales = quantise(values, "int8" if stored == "int8" else "int4")
        kept = pack(codes) if stored == "int4" else codes
        assert kept.nbytes + scales.nbytes == 3 * expected
