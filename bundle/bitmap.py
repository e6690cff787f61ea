"""Sets of catalogue rows, one bit a row: 10^7 ads take 1.25 MB, and `and`, `or` of two sets 0.1 ms.

Row r is bit r % 8 of byte r // 8, the lowest bit first. Bits beyond the last row are 0.
"""

import numpy as np
import numpy.typing as npt

from bundle.schema import FIRST_KNOWN

Bitmap = npt.NDArray[np.uint8]
"""uint8[ceil(rows / 8)]"""


def pack(mask: npt.NDArray[np.bool_]) -> Bitmap:
    """The bitmap of the rows where bool[rows] is True."""
    return np.packbits(mask, bitorder="little")


def unpack(bitmap: Bitmap, rows: int) -> npt.NDArray[np.bool_]:
    """bool[rows]"""
    return np.unpackbits(bitmap, count=rows, bitorder="little").view(np.bool_)


def of_rows(members: npt.NDArray[np.integer], rows: int) -> Bitmap:
    """The bitmap, over `rows` rows, that holds the given ones."""
    mask = np.zeros(rows, dtype=np.bool_)
    mask[members] = True
    return pack(mask)


def test(bitmap: Bitmap, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """For each row of int[n] whether it is in the set, bool[n]."""
    found: npt.NDArray[np.bool_] = (bitmap[rows >> 3] >> (rows & 7).astype(np.uint8) & 1).view(np.bool_)
    return found


def count(bitmap: Bitmap) -> int:
    """How many rows are in the set. 64 bits at a time: 0.12 ms for 10^7 rows, byte by byte 0.47 ms."""
    whole = bitmap.size // 8 * 8
    words = bitmap[:whole].view(np.uint64)
    return int(np.bitwise_count(words).sum(dtype=np.uint64)) + int(np.bitwise_count(bitmap[whole:]).sum())


def everything(rows: int) -> Bitmap:
    """All ads of a catalogue of `rows` rows: the reserved rows 0 and 1 are not in it."""
    return without(np.zeros(-(-rows // 8), dtype=np.uint8), rows)


def without(bitmap: Bitmap, rows: int) -> Bitmap:
    """All ads that are not in the set, which may hold reserved rows."""
    rest = ~bitmap
    if rest.size:
        rest[0] &= 0xFF << FIRST_KNOWN & 0xFF
        rest[-1] &= 0xFF >> (-rows & 7)
    return rest


def counts(bitmap: Bitmap, bounds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many rows of each range [bounds[i], bounds[i + 1]) are in the set, int64[len(bounds) - 1].

    The bounds must not descend. 6,000 ranges over 10^7 rows take 0.3 ms.
    """
    words = np.zeros(len(bitmap) // 8 + 1, dtype=np.uint64)  # one more than needed: the last bound may stand behind it
    words.view(np.uint8)[: len(bitmap)] = bitmap
    before = np.zeros(len(words) + 1, dtype=np.int64)
    np.cumsum(np.bitwise_count(words), out=before[1:])
    word, bit = bounds >> 6, (bounds & 63).astype(np.uint64)
    below = np.left_shift(np.uint64(1), bit) - np.uint64(1)
    upto: npt.NDArray[np.int64] = before[word] + np.bitwise_count(words[word] & below)
    return np.diff(upto)


def members(bitmap: Bitmap, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows of the set that lie in the ranges [starts[i], ends[i]), ascending, as the ranges must be, none empty.

    Reads the bytes that the ranges touch and no others.
    """
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    first, last = starts >> 3, (ends - 1) >> 3
    lengths = last - first + 1
    if len(starts) == 1:
        places = np.arange(first[0], last[0] + 1)
        found = bitmap[first[0] : last[0] + 1].copy()
    else:
        places = ranges(first, lengths)
        found = bitmap[places]
    stops = np.cumsum(lengths)
    found[stops - lengths] &= np.left_shift(0xFF, starts & 7).astype(np.uint8)
    found[stops - 1] &= np.right_shift(0xFF, -ends & 7).astype(np.uint8)
    filled = np.flatnonzero(found != 0)
    bits = np.flatnonzero(np.unpackbits(found[filled], bitorder="little").view(np.bool_))
    rows: npt.NDArray[np.int64] = (places[filled[bits >> 3]] << 3) + (bits & 7)
    return rows


def ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """starts[0], starts[0] + 1, ..., then those of the next range: int64[sum of lengths]."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - ends + lengths, lengths) + np.arange(ends[-1] if len(ends) else 0)
