"""Matching by cells, against plain loops over sorted lists."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bundle.bitmap import of_rows, unpack
from bundle.cell_files import LEVELS, arrange, check_cells, load_cells, save_cells
from bundle.cells import Cells
from bundle.errors import ContractError
from bundle.schema import FIRST_KNOWN

DIMENSION = 3


class World:
    """A catalogue arranged by cells, with the vectors and worths of its rows."""

    def __init__(self, ads: int, cells: int, seed: int, worths: int = 0) -> None:
        """`worths`: so many different worths, 0 for as many as there are ads."""
        random = np.random.default_rng(seed)
        vectors = random.normal(size=(ads + FIRST_KNOWN, DIMENSION)).astype(np.float32)
        worth = random.random(ads + FIRST_KNOWN, dtype=np.float32)
        if worths:
            worth = np.floor(worth * worths).astype(np.float32)
        self.given = vectors, worth
        self.order, self.cells = arrange(vectors, worth, random.integers(0, cells, ads))
        self.vectors, self.worth = vectors[self.order], worth[self.order]
        self.query = random.normal(size=DIMENSION).astype(np.float32)
        self.allowed = np.sort(random.choice(ads, random.integers(0, ads + 1), replace=False)) + FIRST_KNOWN
        self.bitmap = of_rows(self.allowed, ads + FIRST_KNOWN)

    def best(self, n: int, allowed: set[int]) -> set[int]:
        """Whole cells from the best one on, of the last one the first that fill up to n."""
        found: list[int] = []
        bounds = self.cells.offsets.tolist()
        products = (self.cells.centroids @ self.query).tolist()
        for cell in sorted(range(len(products)), key=lambda c: (-products[c], c)):
            found += [row for row in range(bounds[cell], bounds[cell + 1]) if row in allowed]
        return set(found[:n])


worlds = st.builds(World, st.integers(1, 400), st.integers(1, 40), st.integers(0, 999), st.sampled_from([0, 1, 3]))


@given(worlds)
def test_rows_stand_by_cell_then_by_falling_worth(world: World) -> None:
    cells = world.cells
    assert world.order[:FIRST_KNOWN].tolist() == [0, 1]
    assert sorted(world.order.tolist()) == list(range(len(world.worth)))
    for cell, (start, end) in enumerate(zip(cells.offsets[:-1], cells.offsets[1:], strict=True)):
        assert start < end
        inside = list(range(start, end))
        assert inside == sorted(inside, key=lambda row: (-world.worth[row], world.order[row]))
        np.testing.assert_allclose(cells.centroids[cell], world.vectors[start:end].mean(axis=0), atol=1e-6)
        counted = [(world.worth[start:end] >= threshold).sum() for threshold in cells.thresholds]
        assert cells.levels[cell].tolist() == counted
    check_cells(Path("here"), cells, world.worth)


@given(worlds, st.integers(1, 450))
def test_the_matched_ads_are_those_of_the_best_cells(world: World, n: int) -> None:
    every = set(range(FIRST_KNOWN, len(world.worth)))
    for allowed, bitmap in ((every, None), (set(world.allowed.tolist()), world.bitmap)):
        matched = world.cells.nearest(world.query, n, bitmap)
        rows = matched.rows()
        assert set(rows.tolist()) == world.best(n, allowed)
        assert len(rows) == matched.ads == min(n, len(allowed)), "none twice, and filled as far as the catalogue goes"
        assert (np.diff(rows) > 0).all()
        inside = np.array(sorted(allowed), dtype=np.int64)
        assert inside[matched.holds(inside)].tolist() == rows.tolist()


@given(worlds, st.integers(1, 450), st.integers(1, 200))
def test_the_worthiest_are_among_the_rows_looked_at(world: World, n: int, keep: int) -> None:
    for bitmap in (None, world.bitmap):
        for matched in (world.cells.nearest(world.query, n, bitmap), world.cells.everything(bitmap)):
            rows = world.cells.worthiest(matched, keep)
            of_all = matched.rows()
            assert set(rows.tolist()) <= set(of_all.tolist())
            assert (np.diff(rows) > 0).all()
            falling = np.sort(world.worth[of_all])[::-1]
            border = falling[min(keep, len(falling)) - 1] if len(falling) else 0
            expected = of_all[world.worth[of_all] >= border]
            assert set(expected.tolist()) <= set(rows.tolist()), "all of equal worth too, so that ties can be settled"


@given(worlds, st.integers(1, 450), st.randoms(use_true_random=False))
def test_ads_beside_the_cells_count(world: World, n: int, random: Random) -> None:
    every = list(range(FIRST_KNOWN, len(world.worth)))
    for allowed, bitmap in ((every, None), (world.allowed.tolist(), world.bitmap)):
        beside = sorted(random.sample(allowed, random.randint(0, min(n, len(allowed)))))
        matched = world.cells.nearest(world.query, n, bitmap, np.array(beside, dtype=np.int64))
        together = set(matched.rows().tolist()) | set(beside)
        assert len(together) == min(n, len(allowed))
        assert matched.ads == len(matched.rows())
        fewest = next(i for i in range(n + 1) if len(world.best(i, set(allowed)) | set(beside)) >= len(together))
        assert together == world.best(fewest, set(allowed)) | set(beside), "no cell is skipped"


def test_few_rows_beside_the_worthiest_are_looked_at() -> None:
    world = World(50_000, 200, seed=1)
    matched = world.cells.nearest(world.query, 20_000)
    assert len(world.cells.worthiest(matched, 2_000)) < 2_000 + 2 * 20_000 / LEVELS
    some = World(50_000, 200, seed=2)
    half = np.sort(np.random.default_rng(0).choice(50_000, 25_000, replace=False)) + FIRST_KNOWN
    matched = some.cells.nearest(some.query, 10_000, of_rows(half, 50_002))
    rows = some.cells.worthiest(matched, 1_000)
    assert len(rows) < 1_600
    assert unpack(of_rows(half, 50_002), 50_002)[rows].all()


def test_a_query_that_is_no_number_still_matches() -> None:
    world = World(300, 20, seed=0)
    found = world.cells.nearest(np.full(DIMENSION, np.nan, dtype=np.float32), 50)
    assert found.ads == len(found.rows()) == 50


def test_allowed_ads_in_one_far_cell_are_found() -> None:
    world = World(4_000, 400, seed=3)
    far = int(np.argmin(world.cells.centroids @ world.query))
    rows = np.arange(world.cells.offsets[far], world.cells.offsets[far + 1])
    many = np.unique(np.concatenate([rows, np.arange(2, 2002)]))
    bitmap = of_rows(rows, 4_002)
    assert world.cells.nearest(world.query, 3, bitmap).rows().tolist() == rows[:3].tolist()
    assert set(world.cells.nearest(world.query, len(many), of_rows(many, 4_002)).rows().tolist()) == set(many.tolist())


def test_no_ads() -> None:
    order, cells = arrange(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.empty(0, np.int64))
    assert order.tolist() == [0, 1]
    for matched in (cells.nearest(np.zeros(4, np.float32), 10), cells.everything()):
        assert (matched.ads, matched.rows().tolist()) == (0, [])
        assert cells.worthiest(matched, 5).tolist() == []
        assert matched.holds(np.array([2])).tolist() == [False]


def write(folder: Path, world: World, **changed: npt.NDArray[Any]) -> Path:
    folder.mkdir()
    save_cells(folder, world.cells)
    for name, array in changed.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def test_cells_make_the_round_trip(tmp_path: Path) -> None:
    world = World(200, 9, seed=0)
    folder = write(tmp_path / "cells", world)
    loaded = load_cells(folder, len(world.cells.sizes), DIMENSION)
    for name in ("centroids", "offsets", "thresholds", "levels"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(world.cells, name))
    check_cells(folder, loaded, world.worth)


def test_other_shapes_are_refused(tmp_path: Path) -> None:
    world = World(200, 9, seed=0)
    folder = write(tmp_path / "cells", world)
    with pytest.raises(ContractError, match=r"centroids.npy: float32\[9, 3\], the manifest needs float32\[9, 4\]"):
        load_cells(folder, 9, 4)
    with pytest.raises(ContractError, match=r"centroids.npy: float32\[9, 3\], the manifest needs float32\[8, 3\]"):
        load_cells(folder, 8, DIMENSION)
    (folder / "levels.npy").unlink()
    with pytest.raises(ContractError, match=r"levels.npy: not a readable array"):
        load_cells(folder, 9, DIMENSION)


def changed(cells: Cells, name: str, index: Any, by: float) -> Cells:
    arrays = {each: getattr(cells, each).copy() for each in ("centroids", "offsets", "thresholds", "levels")}
    arrays[name][index] += by
    return Cells(**arrays)


@pytest.mark.parametrize(
    ("name", "index", "by", "message"),
    [
        ("offsets", 0, -1, r"offsets.npy: from 1 to 202, they must ascend from 2 to 202"),
        ("offsets", -1, 1, r"offsets.npy: from 2 to 203"),
        ("offsets", 3, 100, r"offsets.npy: from 2 to 202, they must ascend"),
        ("levels", (4, 20), 1, r"levels.npy: cell 4 has"),
        ("thresholds", -1, -0.5, r"levels.npy: cell|thresholds"),
        ("thresholds", 5, 9.0, r"thresholds.npy: they must not rise"),
    ],
)
def test_wrong_cells_are_refused(name: str, index: Any, by: float, message: str) -> None:
    world = World(200, 9, seed=0)
    wrong = changed(world.cells, name, index, by)
    if name == "thresholds" and index == -1:
        wrong.thresholds[-1] = world.worth.max()
        wrong.thresholds[:] = np.sort(wrong.thresholds)[::-1]
    with pytest.raises(ContractError, match=message):
        check_cells(Path("cells"), wrong, world.worth)


def test_ads_that_are_not_in_the_order_of_their_worth_are_refused() -> None:
    world = World(200, 9, seed=0)
    worth = world.worth.copy()
    start = int(world.cells.offsets[2])
    worth[[start, start + 1]] = worth[[start + 1, start]]
    with pytest.raises(ContractError, match=f"the ad of row {start + 1} is worth more than the one before it"):
        check_cells(Path("cells"), world.cells, worth)
