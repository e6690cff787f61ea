"""Rows of numbers as whole steps of a scale that each row has for itself: a byte a number, or half a byte.

    b = 8 or 4,  n = 2^(b - 1),  w the number of the row that is furthest from 0 (of two of the same size the positive)
    scale = -w / n        code = x / scale, rounded to the nearest of -n … n - 1        number = code · scale

So w has the code -n, which the range of b bits has on one side only: steps are 7/8 (int4) of those of the usual ±7, and
no value is further off than half a step, but for those within a step of -w, which may be off by one. Zero stays zero.

A scale is a number divided by a power of two, which is exact. That makes rounding repeatable: of numbers that were
rounded the same codes and scales are found again, bit for bit.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Coded = Literal["int8", "int4"]
BITS: dict[Coded, int] = {"int8": 8, "int4": 4}
Float32 = npt.NDArray[np.float32]

SMALLEST = 2.0**-100
"""No scale is nearer to 0: rows of zeros have this one, and numbers below half of it become zeros. It keeps all that is
computed clear of denormal floats, which some processors are told to take for zeros."""


def row_bytes(stored: str, dimension: int) -> int:
    """Bytes of a row of `dimension` numbers: fp32, fp16, or int8 or int4 with its scale, a float32."""
    if stored in BITS:
        return -(-dimension * BITS[stored] // 8) + 4
    return dimension * {"fp32": 4, "fp16": 2}[stored]


def row_scales(values: Float32, stored: Coded) -> Float32:
    """float32[rows] of finite `values` float32[rows, d]."""
    high, low = values.max(axis=1, initial=0.0), values.min(axis=1, initial=0.0)
    scales = np.where(high >= -low, high, low) / np.float32(-(2 ** (BITS[stored] - 1)))
    return np.where(np.abs(scales) < SMALLEST, np.float32(SMALLEST), scales).astype(np.float32)


def quantise(values: Float32, stored: Coded) -> tuple[npt.NDArray[np.int8], Float32]:
    """Codes int8[rows, d] and scales float32[rows] of finite `values` float32[rows, d]."""
    scales, steps = row_scales(values, stored), 2 ** (BITS[stored] - 1)
    return np.clip(np.rint(values / scales[:, None]), -steps, steps - 1).astype(np.int8), scales


def pack(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """uint8[rows, ⌈d/2⌉] of int4 codes [rows, d], each plus 8: byte j holds code j in its low half and code ⌈d/2⌉ + j
    in its high half. So two halves of a row one after the other are the row, and nothing must be interleaved. An odd
    last half byte is 0."""
    raised, half = (codes + np.int8(8)).view(np.uint8), -(-codes.shape[1] // 2)
    packed = raised[:, :half].copy()
    packed[:, : codes.shape[1] - half] |= raised[:, half:] << np.uint8(4)
    return packed


def unpack(packed: npt.NDArray[np.uint8], dimension: int) -> npt.NDArray[np.int8]:
    """The int4 codes int8[..., dimension] again, of packed rows uint8[..., ⌈dimension/2⌉]."""
    raised = np.concatenate((packed & np.uint8(15), packed >> np.uint8(4)), axis=-1)[..., :dimension]
    return raised.view(np.int8) - np.int8(8)
