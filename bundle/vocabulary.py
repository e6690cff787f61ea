"""Value -> id by binary search in one sorted array.

Known values are kept sorted and the id of the value at position p is p + 2, so a vocabulary is a single `.npy` file of
values in id order that several processes can memory-map: no dictionary has to be built for 10^7 ads.
Integers are stored as int64, strings as fixed-width UTF-8 bytes (whose order is the order of code points).

numpy pads such bytes with NUL and drops NULs at the end when it reads them, so a string that ends in NUL has no form
here: making a vocabulary of it is refused, looking it up gives unknown. The same goes for lone surrogates, which UTF-8
cannot write, and for integers beyond int64.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN, UNKNOWN

Ids = npt.NDArray[np.int32]

INT64 = np.iinfo(np.int64)

SMALL = 4_000
"""Up to this many values a dictionary is kept as well: 0.8 us a single look-up against 2.6 us by binary search, 50
integers in 4 us against 10, 50 strings in 8 against 24. A larger one costs more than that saves: while the one of 10^5
values is made, 20 ms, and while it is freed, no other thread of the interpreter runs."""

FEW = 100
"""More integers than this are looked up faster by binary search: 500 of 20,000 in 40 us, one by one in 75 to 190."""


class Vocabulary:
    """An immutable set of values with an id each."""

    def __init__(self, values: npt.NDArray[Any]) -> None:
        """`values`: int64 or bytes (`S`), strictly ascending. ContractError otherwise."""
        if values.ndim != 1 or not (values.dtype == np.int64 or values.dtype.kind == "S"):
            raise ContractError(
                f"a vocabulary is a 1-d array of int64 or bytes, not {values.dtype}{list(values.shape)}"
            )
        if values.size > 1 and not bool(np.all(values[:-1] < values[1:])):
            raise ContractError("the values of a vocabulary must ascend and be distinct")
        self.values = values
        self.is_integer = values.dtype == np.int64
        self._ids: dict[Any, int] | None = None
        if values.size <= SMALL:
            self._ids = dict(zip(values.tolist(), self._ids_at(np.arange(values.size)).tolist(), strict=True))

    @classmethod
    def of(cls, values: Iterable[int] | Iterable[str]) -> "Vocabulary":
        """The vocabulary of distinct integers or strings, in any order. ContractError for a value without a form."""
        distinct: list[Any] = sorted({_utf8(value) if isinstance(value, str) else int(value) for value in values})
        if distinct and isinstance(distinct[0], bytes):
            return cls(np.array(distinct, dtype=np.bytes_))
        if distinct and not (INT64.min <= distinct[0] and distinct[-1] <= INT64.max):
            raise ContractError(f"integers from {distinct[0]} to {distinct[-1]} do not fit into int64")
        return cls(np.array(distinct, dtype=np.int64))

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Memory-map the file written by `save`. ContractError when it holds no vocabulary."""
        try:
            return cls(np.lib.format.open_memmap(path, mode="r").view(np.ndarray))
        except (OSError, ValueError, ContractError) as error:
            raise ContractError(f"{path}: not a readable vocabulary: {error}") from error

    def save(self, path: Path) -> None:
        """Write the values, in id order."""
        np.save(path, self.values, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def size(self) -> int:
        """Number of ids, padding and unknown included: rows of an embedding table."""
        return len(self.values) + FIRST_KNOWN

    def value_of(self, i: int) -> int | str:
        """The value whose id is `i`. IndexError for padding, unknown and ids out of range."""
        if not FIRST_KNOWN <= i < self.size:
            raise IndexError(f"id {i} stands for no value, known ones are {FIRST_KNOWN}..{self.size - 1}")
        value = self.values[self._position_of(i)]
        return int(value) if self.is_integer else bytes(value).decode()

    def id_of(self, value: object) -> int:
        """The id of one raw value; 1 for None, NaN, another type, or a value never seen."""
        key = self._canonical(value)
        if key is None:
            return UNKNOWN
        if self._ids is not None:
            return self._ids.get(key, UNKNOWN)
        if isinstance(key, bytes) and len(key) > self.values.dtype.itemsize:
            return UNKNOWN  # and no search: numpy would first copy all values to the greater width
        probe = np.array(key, dtype=np.int64 if self.is_integer else np.bytes_)
        position = np.searchsorted(self.values, probe)
        if position == len(self.values) or self.values[position] != key:
            return UNKNOWN
        return int(self._ids_at(position))

    def ids_of(self, values: npt.NDArray[Any]) -> Ids:
        """Ids of many raw values, int32[n]: one binary search over all of them.

        Takes integers, floats (NaN and fractions are unknown), bytes, or str/object arrays (None is unknown).
        """
        if values.size == 0 or len(self.values) == 0:
            return np.full(values.shape, UNKNOWN, dtype=np.int32)
        if values.dtype.kind in "OU":
            return np.fromiter((self.id_of(value) for value in values), dtype=np.int32, count=values.size)
        keys, usable = self._keys(values)
        position = np.minimum(np.searchsorted(self.values, keys), len(self.values) - 1)
        found = usable & (self.values[position] == keys)
        return np.where(found, self._ids_at(position), UNKNOWN).astype(np.int32)

    def ids_of_list(self, values: Sequence[Any]) -> Ids:
        """Ids of raw values as JSON gives them, int32[n]: the same as `id_of` one by one, but those of the vocabulary's
        own type are looked up together. 50 integers of 10^6 take 9 us instead of 130, of 50,000 4 us instead of 45."""
        if self._ids is not None and (len(values) <= FEW or not self.is_integer):
            get = self._ids.get
            if self.is_integer:
                found = [get(each, UNKNOWN) if type(each) is int else self.id_of(each) for each in values]
            else:
                found = [get(_bytes(each), UNKNOWN) if type(each) is str else self.id_of(each) for each in values]
            return np.array(found, dtype=np.int32)
        own = int if self.is_integer else str
        if all(type(each) is own for each in values):
            try:
                return self.ids_of(np.array(values, dtype=np.int64)) if self.is_integer else self._strings(values)
            except OverflowError:  # an integer beyond int64: each on its own
                pass
        return np.fromiter((self.id_of(each) for each in values), dtype=np.int32, count=len(values))

    def _strings(self, values: Sequence[str]) -> Ids:
        """One binary search for strings. A probe wider than the stored ones would have all of them copied to its width,
        so longer ones are cut and their answers dropped."""
        keys = [_bytes(each) for each in values]
        ids = self.ids_of(np.array(keys, dtype=self.values.dtype))
        width = self.values.dtype.itemsize
        ids[[len(key) > width or key.endswith(b"\0") for key in keys]] = UNKNOWN
        return ids

    def _ids_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.integer]:
        """Ids of the values at these positions: the one place, with the next, that says how ids are given."""
        return positions + FIRST_KNOWN

    def _position_of(self, i: int) -> int:
        return i - FIRST_KNOWN

    def _keys(self, values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """`values` in the type of this vocabulary, and which of them have one."""
        if self.is_integer:
            if values.dtype.kind in "iub":
                return values.astype(np.int64), np.asarray(values <= INT64.max)
            if values.dtype.kind == "f":
                floats = values.astype(np.float64)
                usable = (floats >= -(2.0**63)) & (floats < 2.0**63) & (np.floor(floats) == floats)
                return np.where(usable, floats, 0).astype(np.int64), usable
        elif values.dtype.kind == "S":
            return values, np.ones(values.shape, dtype=np.bool_)
        listed = [self._canonical(value) for value in values.tolist()]
        usable = np.array([key is not None for key in listed], dtype=np.bool_)
        empty: int | bytes = 0 if self.is_integer else b""
        keys = np.array([empty if key is None else key for key in listed], dtype=np.int64 if self.is_integer else "S")
        return keys, usable

    def _canonical(self, value: object) -> int | bytes | None:
        """The form in which a raw value is stored, None when it has none in this vocabulary.

        Over HTTP the same value may come as 4, 4.0 or "4"; all three mean the integer 4, or the string "4".
        """
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | bytes | int | float) or (isinstance(value, float) and math.isnan(value)):
            return None
        try:
            if not self.is_integer:
                return _utf8(value if isinstance(value, str | bytes) else str(value))
            number = int(value) if isinstance(value, str | bytes) else value
        except (ValueError, ContractError):
            return None
        return int(number) if isinstance(number, int) and INT64.min <= number <= INT64.max else None


def _utf8(value: str | bytes) -> bytes:
    """The stored form of a string. ContractError when it has none."""
    try:
        encoded = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError as error:
        raise ContractError(f"{value!r:.80} cannot be stored: UTF-8 has no lone surrogates") from error
    if encoded.endswith(b"\0"):
        raise ContractError(f"{value!r:.80} cannot be stored: it ends in NUL, which fixed-width bytes drop")
    return encoded


def _bytes(value: str) -> bytes:
    """UTF-8 of a string that need not be stored anywhere: a lone surrogate becomes bytes that no vocabulary holds."""
    return value.encode("utf-8", "surrogatepass")
