"""Cells of a catalogue: made from an assignment of ads to cells, written, memory-mapped, and held against the ads."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from bundle.arrays import load_array
from bundle.cells import Cells
from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN

LEVELS = 64
"""Thresholds. Of 10^5 matched ads the 10^4 worthiest lie above one of 64 together with about 900 others."""
NAMES = ("centroids", "offsets", "thresholds", "levels")


def arrange(
    vectors: npt.NDArray[np.float32], worth: npt.NDArray[np.float32], cell: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], Cells]:
    """The order of a catalogue, and its cells.

    `vectors` float32[n + 2, d] and `worth` float32[n + 2] stand in any order of ads, after the two reserved rows;
    `cell[n]` is the cell of each ad, from 0. Row i of the catalogue becomes row order[i] of what was given: by cell,
    then falling worth, then as given. Cells without ads are left out.
    """
    _, cell, sizes = np.unique(cell, return_inverse=True, return_counts=True)
    value = np.asarray(worth[FIRST_KNOWN:])
    by_cell = np.lexsort((-value, cell))
    offsets = FIRST_KNOWN + np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    order = np.concatenate((np.arange(FIRST_KNOWN), by_cell + FIRST_KNOWN))
    sums = np.zeros((len(sizes), vectors.shape[1]))
    for column in range(vectors.shape[1]):  # one at a time: 10^7 vectors in float64 are 2.6 GB
        sums[:, column] = np.bincount(cell, weights=vectors[FIRST_KNOWN:, column], minlength=len(sizes))
    thresholds = np.zeros(LEVELS, dtype=np.float32)
    if len(value):
        falling = -np.sort(-value)
        thresholds[:] = falling[-(-np.arange(1, LEVELS + 1) * len(value) // LEVELS) - 1]
    level = LEVELS - np.searchsorted(thresholds[::-1], value, side="right")  # the first threshold not above the worth
    held = np.bincount(cell * LEVELS + level, minlength=len(sizes) * LEVELS).reshape(len(sizes), LEVELS)
    centroids = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return order, Cells(centroids, offsets, thresholds, np.cumsum(held, axis=1).astype(np.int32))


def save_cells(folder: Path, cells: Cells) -> None:
    """Write the four files of `cells` into `folder`."""
    for name in NAMES:
        np.save(folder / f"{name}.npy", getattr(cells, name))


def load_cells(folder: Path, count: int, dimension: int) -> Cells:
    """Memory-map what `save_cells` wrote. ContractError when it does not hold `count` cells of `dimension` numbers."""
    expected: dict[str, tuple[tuple[int, ...], str]] = {
        "centroids": ((count, dimension), "float32"),
        "offsets": ((count + 1,), "int64"),
        "thresholds": ((LEVELS,), "float32"),
        "levels": ((count, LEVELS), "int32"),
    }
    arrays = {name: load_array(folder / f"{name}.npy", dtype, shape) for name, (shape, dtype) in expected.items()}
    return Cells(**arrays)


def check_cells(folder: Path, cells: Cells, worth: npt.NDArray[np.float32]) -> None:
    """ContractError unless the cells divide the catalogue, whose ads are worth `worth` float32[n + 2], and the levels
    count its ads. A few passes over the catalogue: 0.15 s for 10^7 ads."""
    offsets, thresholds, levels = cells.offsets, cells.thresholds, cells.levels
    if offsets[0] != FIRST_KNOWN or offsets[-1] != len(worth) or (np.diff(offsets) <= 0).any():
        raise ContractError(
            f"{folder}/offsets.npy: from {offsets[0]} to {offsets[-1]}, they must ascend from {FIRST_KNOWN} to "
            f"{len(worth)}"
        )
    rises = np.flatnonzero(worth[FIRST_KNOWN + 1 :] > worth[FIRST_KNOWN:-1]) + FIRST_KNOWN + 1
    if (wrong := rises[~np.isin(rises, offsets)]).size:
        raise ContractError(f"{folder}: the ad of row {wrong[0]} is worth more than the one before it in its cell")
    if (np.diff(thresholds) > 0).any():
        raise ContractError(f"{folder}/thresholds.npy: they must not rise")
    for cell, (start, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        counted = np.searchsorted(-worth[start:end], -thresholds, side="right")
        if not np.array_equal(counted, levels[cell]):
            raise ContractError(
                f"{folder}/levels.npy: cell {cell} has {levels[cell].tolist()} ads above the thresholds, "
                f"{counted.tolist()} are there"
            )
    if len(offsets) > 1 and not np.array_equal(levels[:, -1], np.diff(offsets)):
        raise ContractError(f"{folder}/thresholds.npy: the last one, {thresholds[-1]}, is above some ad's worth")
