"""Sets of rows by value against plain Python sets, for frequent values and rare ones."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle import row_sets
from bundle.bitmap import Bitmap, of_rows, unpack
from bundle.errors import ContractError
from bundle.row_sets import DENSE, RowSets, check_row_sets, load_row_sets, write_row_sets
from bundle.vocabulary import Vocabulary

VALUES = Vocabulary.of(range(10, 18))
"""Ids 2..9."""


def members(bitmap: Bitmap, rows: int) -> set[int]:
    return set(np.flatnonzero(unpack(bitmap, rows)).tolist())


def spread(n: int, value: int) -> list[tuple[int, int]]:
    """n rows, each in a byte of its own, that have the value."""
    return [(2 + 8 * i, value) for i in range(n)]


def make(folder: Path, pairs: list[tuple[int, int]], everywhere: list[int], rows: int) -> RowSets:
    row, value = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    write_row_sets(folder, "f", VALUES, row, value, of_rows(np.array(everywhere, dtype=np.int64), rows))
    sets = load_row_sets(folder, "f", rows)
    check_row_sets(folder, "f", sets, rows)
    return sets


@given(st.data(), st.sampled_from([10, 600, 3000]))
def test_a_union_is_that_of_sets(data: st.DataObject, rows: int) -> None:
    """Of 10 rows every value has a bitmap; of 3000 rows it takes 24 to have one."""
    seed = data.draw(st.integers(0, 2**32 - 1))
    sizes = data.draw(st.lists(st.integers(0, 60), min_size=8, max_size=8))
    random = np.random.default_rng(seed)
    wanted = {10 + i: set(random.integers(2, rows, n).tolist()) for i, n in enumerate(sizes)}
    everywhere = set(random.integers(2, rows, data.draw(st.integers(0, 30))).tolist())
    pairs = [(row, value - 8) for value, found in wanted.items() for row in found]
    asked = data.draw(st.lists(st.sampled_from([*range(10, 18), "12", 99, None, "no such"]), max_size=6))
    with TemporaryDirectory() as folder:
        sets = make(Path(folder), pairs + pairs[:5], sorted(everywhere), rows)
        expected = everywhere.union(*(wanted.get(int(value) if value == "12" else value, set()) for value in asked))
        assert members(sets.union(asked), rows) == expected


def test_frequent_values_have_bitmaps_and_rare_ones_bytes(tmp_path: Path) -> None:
    rows = 20 * DENSE
    sets = make(tmp_path, spread(21, 3) + spread(20, 4), [5], rows)
    assert len(sets.bitmaps) == 2
    assert sets.places.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert sets.bytes.size == sets.bits.size == 20
    assert members(sets.union([11]), rows) == {row for row, _ in spread(21, 3)} | {5}
    assert members(sets.union([12]), rows) == {row for row, _ in spread(20, 4)} | {5}
    assert members(sets.union([]), rows) == {5}


def test_values_with_few_bytes_and_with_many_are_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them the same bytes."""
    rows = 200 * DENSE
    pairs = [(2 + i, 2 + i % 8) for i in range(300)] + [(9 + 17 * i, 2) for i in range(100)]
    sets = make(tmp_path, pairs, [], rows)
    assert len(sets.bitmaps) == 1
    longest = int(np.diff(sets.offsets).max())
    for short in (0, 20, longest, longest + 1, 1000):
        monkeypatch.setattr(row_sets, "SHORT", short)
        assert members(sets.union(range(10, 18)), rows) == {row for row, _ in pairs}
        assert members(sets.union([10, 11]), rows) == {row for row, value in pairs if value in (2, 3)}


def test_a_catalogue_without_ads(tmp_path: Path) -> None:
    sets = make(tmp_path, [], [], 2)
    assert members(sets.union([10]), 2) == set()


def change(name: str, alter: Callable[[Any], Any]) -> Callable[[Path], None]:
    def altered(folder: Path) -> None:
        path = folder / f"f.{name}.npy"
        np.save(path, alter(np.load(path)))

    return altered


@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (change("places", lambda a: a + 9), r"f\.places\.npy: holds 9\.\.10, only 0\.\.1 may be there"),
        (change("bytes", lambda a: a + 9000), r"f\.bytes\.npy: holds 9000.*only 0\.\.319 may be there"),
        (change("bytes", lambda a: a[::-1].copy()), r"f\.bytes\.npy: the bytes of a value must ascend"),
        (change("bytes", lambda a: a[:-1]), r"f\.bits\.npy: uint8\[20\], uint8\[19\] is needed"),
        (change("bits", lambda a: a | 1), r"f\.bits\.npy: holds rows that are no ads"),
        (change("offsets", lambda a: a[::-1].copy()), r"f\.offsets\.npy: from 20 to 0, they must ascend from 0 to 20"),
        (change("offsets", lambda a: a + 1), r"f\.offsets\.npy: holds 1\.\.21"),
        (change("bitmaps", lambda a: a | 1), r"f\.bitmaps\.npy: holds rows that are no ads"),
        (change("places", lambda a: a.astype(np.int64)), r"f\.places\.npy: int64\[10\], int32\[10\] is needed"),
        (change("bitmaps", lambda a: a[:, :-1]), r"f\.bitmaps\.npy: uint8\[2, 319\], uint8\[2, 320\] is needed"),
        (change("offsets", lambda _: np.int64(3)), r"f\.offsets\.npy: holds one number"),
        (lambda folder: (folder / "f.bytes.npy").unlink(), r"f\.bytes\.npy: not a readable array"),
    ],
)
def test_sets_that_cannot_be_right_are_refused(tmp_path: Path, alter: Callable[[Path], None], message: str) -> None:
    rows = 20 * DENSE
    make(tmp_path, spread(21, 3) + spread(20, 4), [5], rows)
    alter(tmp_path)
    with pytest.raises(ContractError, match=message):
        check_row_sets(tmp_path, "f", load_row_sets(tmp_path, "f", rows), rows)
