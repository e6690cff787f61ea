"""Which catalogue rows have each raw value of a field: what filters and targeting are looked up in.

A frequent value's rows are a bitmap; of a rare one's only the bytes that are not 0 are kept. On disk, for a field F
whose v values have the ids 2..v+1 (0 padding, 1 every value never seen):

    F.values.npy    the raw values: a Vocabulary
    F.bitmaps.npy   uint8[b + 1, ceil(rows / 8)]; the first one holds the rows that are in every set
    F.places.npy    int32[v + 2]: which bitmap an id has, the rows of every set included; 0: kept bytes instead
    F.bytes.npy     int32[m], F.bits.npy uint8[m] and F.offsets.npy int64[v + 3]: id i has bits[j] in byte bytes[j], for
                    j from offsets[i] up to offsets[i + 1]; bytes ascend
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.bitmap import Bitmap, everything
from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN
from bundle.vocabulary import Vocabulary

DENSE = 128
"""A value with more bytes than one for so many rows gets a bitmap. Adding 78,125 kept bytes to 10^7 rows takes 0.15 ms,
an `or` of two bitmaps 0.05 ms; the bitmaps of a field of single values take at most 128 times what one takes."""
SHORT = 1000
"""Values with fewer bytes are added together: one addition takes some microseconds, whatever its length."""


@dataclass(frozen=True, slots=True)
class RowSets:
    """The sets of one field; see the head of this file."""

    values: Vocabulary
    bitmaps: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int32]
    bytes: npt.NDArray[np.int32]
    bits: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    def union(self, values: Iterable[object]) -> Bitmap:
        """The rows that have one of the raw `values`; a value never seen adds none. Not to be written to."""
        ids = sorted({self.values.id_of(value) for value in values})
        places = [place for each in ids if (place := int(self.places[each]))]
        kept = [part for each in ids if (part := slice(*self.offsets[each : each + 2].tolist())).start < part.stop]
        if not kept and len(places) <= 1:
            return np.asarray(self.bitmaps[places[0] if places else 0])
        united = np.array(self.bitmaps[0])
        for place in places:
            united |= self.bitmaps[place]
        short = [part for part in kept if part.stop - part.start < SHORT]
        if short:  # bytes of several values may be the same ones
            bits = np.concatenate([self.bits[part] for part in short])
            np.bitwise_or.at(united, np.concatenate([self.bytes[part] for part in short]), bits)
        for part in kept:
            if part.stop - part.start >= SHORT:
                united[self.bytes[part].astype(np.int64)] |= self.bits[part]  # twice as fast as by 32-bit indices
        return united


def write_row_sets(
    folder: Path,
    name: str,
    values: Vocabulary,
    rows: npt.NDArray[np.integer],
    ids: npt.NDArray[np.integer],
    everywhere: Bitmap,
) -> None:
    """Write the sets of field `name`: row `rows[i]` has the value with id `ids[i]`; repeated pairs count once.

    `everywhere`: the rows that are in every set, over all rows of the catalogue.
    """
    order = np.lexsort((rows, ids))
    row, value = rows[order], ids[order]
    known = value >= FIRST_KNOWN
    byte, bit, value = (row[known] >> 3).astype(np.int32), np.left_shift(1, row[known] & 7), value[known]
    first = np.ones(len(value), dtype=np.bool_)
    first[1:] = (byte[1:] != byte[:-1]) | (value[1:] != value[:-1])
    starts = np.flatnonzero(first)
    byte, value = byte[starts], value[starts]
    bits = np.bitwise_or.reduceat(bit, starts).astype(np.uint8) if len(starts) else np.empty(0, dtype=np.uint8)
    bounds = np.searchsorted(value, np.arange(values.size + 1))
    dense = np.flatnonzero(np.diff(bounds) * DENSE > everywhere.size * 8)
    places = np.zeros(values.size, dtype=np.int32)
    places[dense] = np.arange(1, len(dense) + 1)
    bitmaps = np.repeat(everywhere[None, :], len(dense) + 1, axis=0)
    for place, each in enumerate(dense, 1):
        mine = slice(bounds[each], bounds[each + 1])
        bitmaps[place, byte[mine]] |= bits[mine]
    kept = places[value] == 0
    values.save(folder / f"{name}.values.npy")
    np.save(folder / f"{name}.bitmaps.npy", bitmaps)
    np.save(folder / f"{name}.places.npy", places)
    np.save(folder / f"{name}.bytes.npy", byte[kept])
    np.save(folder / f"{name}.bits.npy", bits[kept])
    np.save(folder / f"{name}.offsets.npy", np.searchsorted(value[kept], np.arange(values.size + 1)).astype(np.int64))


def load_row_sets(folder: Path, name: str, rows: int) -> RowSets:
    """Memory-map what `write_row_sets` wrote. ContractError when a file's dtype or shape does not fit `rows` rows."""
    values = Vocabulary.load(folder / f"{name}.values.npy")
    arrays = {each: _load(folder / f"{name}.{each}.npy") for each in ("bitmaps", "places", "bytes", "bits", "offsets")}
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "bitmaps": ((max(1, len(arrays["bitmaps"])), -(-rows // 8)), "uint8"),
        "places": ((values.size,), "int32"),
        "bytes": ((arrays["bytes"].size,), "int32"),
        "bits": ((arrays["bytes"].size,), "uint8"),
        "offsets": ((values.size + 1,), "int64"),
    }
    for each, (shape, dtype) in expected.items():
        found = arrays[each]
        if found.shape != shape or found.dtype != dtype:
            raise ContractError(
                f"{folder}/{name}.{each}.npy: {found.dtype}{list(found.shape)}, {dtype}{list(shape)} is needed"
            )
    return RowSets(values, **arrays)


def check_row_sets(folder: Path, name: str, sets: RowSets, rows: int) -> None:
    """ContractError unless every place, offset and byte is one that there is, and no set holds what is no ad."""
    possible, offsets = everything(rows), sets.offsets
    for each, found, end in (
        ("places", sets.places, len(sets.bitmaps)),
        ("bytes", sets.bytes, possible.size),
        ("offsets", offsets, sets.bytes.size + 1),
    ):
        if found.size and not (int(found.min()) >= 0 and int(found.max()) < end):
            raise ContractError(
                f"{folder}/{name}.{each}.npy: holds {found.min()}..{found.max()}, only 0..{end - 1} may be there"
            )
    if offsets[0] != 0 or offsets[-1] != sets.bytes.size or np.any(np.diff(offsets) < 0):
        raise ContractError(
            f"{folder}/{name}.offsets.npy: from {offsets[0]} to {offsets[-1]}, they must ascend from 0 to "
            f"{sets.bytes.size}"
        )
    falls = np.flatnonzero(np.diff(sets.bytes) <= 0) + 1
    if not np.all(np.isin(falls, offsets)):
        raise ContractError(f"{folder}/{name}.bytes.npy: the bytes of a value must ascend")
    if any(np.any(sets.bitmaps[:, i] & ~possible[i]) for i in (0, -1)):
        raise ContractError(f"{folder}/{name}.bitmaps.npy: holds rows that are no ads")
    if np.any(sets.bits & ~possible[sets.bytes]):
        raise ContractError(f"{folder}/{name}.bits.npy: holds rows that are no ads")


def _load(path: Path) -> npt.NDArray[Any]:
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ContractError(f"{path}: not a readable array: {error}") from error
    if not array.ndim:
        raise ContractError(f"{path}: holds one number, not an array")
    return array
