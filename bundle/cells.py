"""Cells: ads whose vectors lie near each other. How matching finds 10^5 of 10^7 ads without a look at each of them.

Catalogue rows are in the order of cells, and within a cell the ads worth most (Qscore × bid) come first. A request
takes the cells whose mean vectors have the largest product with its query; the matched ads are then a few ranges of
rows, and the worthiest of them lie at the beginnings of those ranges. On disk, for C cells and T thresholds:

    cells/centroids.npy    float32[C, d]    mean vector of each cell's ads
    cells/offsets.npy      int64[C + 1]     cell c has the rows offsets[c]:offsets[c+1]; the first one begins with row 2
    cells/thresholds.npy   float32[T]       worths, falling; no ad is worth less than the last one
    cells/levels.npy       int32[C, T]      how many of the cell's ads are worth at least so much
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from bundle.bitmap import Bitmap, count, counts, members, ranges
from bundle.schema import FIRST_KNOWN

SHORTLIST = 2
"""Cells are put in order of nearness only among so many times those that are needed on average."""
MARGIN = 1.2
"""How many more rows than needed are looked at when only some may be shown: their share differs from cell to cell."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Matched:
    """Matched ads: the allowed ones of the rows [starts[i], ends[i]) of the cells[i], ascending, none of them empty."""

    cells: npt.NDArray[np.int64]
    starts: Rows
    ends: Rows
    allowed: Bitmap | None
    ads: int
    """How many there are."""

    def holds(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """For each allowed row whether it is matched, bool[n]."""
        if not len(self.starts):
            return np.zeros(len(rows), dtype=np.bool_)
        place = np.searchsorted(self.starts, rows, side="right") - 1
        return (place >= 0) & (rows < self.ends[place])

    def rows(self) -> Rows:
        """All of them, ascending."""
        return _allowed(self.allowed, self.starts, self.ends)


_EMPTY: Rows = np.empty(0, dtype=np.int64)
NOTHING = Matched(_EMPTY, _EMPTY, _EMPTY, None, 0)


@dataclass(frozen=True)
class Cells:
    """The cells of a catalogue; see the head of this file."""

    centroids: npt.NDArray[np.float32]
    offsets: npt.NDArray[np.int64]
    thresholds: npt.NDArray[np.float32]
    levels: npt.NDArray[np.int32]

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Ads of each cell, int64[C]."""
        return np.diff(self.offsets)

    @property
    def ads(self) -> int:
        """Ads of all cells."""
        return int(self.offsets[-1]) - FIRST_KNOWN

    def nearest(
        self, query: npt.NDArray[np.float32], n: int, allowed: Bitmap | None = None, beside: Rows = _EMPTY
    ) -> Matched:
        """The allowed ads of the best cells for `query` float32[d]: so many that there are `n` together with those
        `beside` (at most n of the allowed ones, ascending), or all when there are no more.

        Whole cells, except for the last one, of which only the worthiest ads are taken.
        """
        held = self.sizes if allowed is None else counts(allowed, self.offsets)
        total = int(held.sum())
        if total <= n:
            return self._whole(np.flatnonzero(held), allowed, total)
        wanted, new = n - len(beside), held
        if not wanted:
            return NOTHING
        if len(beside):
            new = held - np.bincount(np.searchsorted(self.offsets, beside, side="right") - 1, minlength=len(held))
        order = self._best(np.asarray(self.centroids @ query), new, wanted, total)
        reached = np.cumsum(new[order])
        last = int(np.searchsorted(reached, wanted))
        whole, cell = order[:last], int(order[last])
        found = self._whole(np.sort(order[: last + 1][held[order[: last + 1]] > 0]), allowed, int(held[whole].sum()))
        return self._cut(found, cell, wanted - int(reached[last] - new[cell]), beside)

    def everything(self, allowed: Bitmap | None = None) -> Matched:
        """All allowed ads."""
        return self._whole(np.arange(len(self.sizes)), allowed, self.ads if allowed is None else count(allowed))

    def worthiest(self, matched: Matched, n: int) -> Rows:
        """Ascending rows of matched ads: the `n` worthiest are among them, and few others. All when there are no more.

        Each worth is the product of the ad's Qscore and bid in float32. Of equal ones all are there.
        """
        if matched.ads <= n:
            return matched.rows()
        lengths = matched.ends - matched.starts
        by_level = self._totals if len(lengths) == len(self.sizes) else self._sum(matched.cells)
        share = matched.ads / int(lengths.sum())
        wanted = n if matched.allowed is None else MARGIN * n / share
        while True:
            level = int(np.searchsorted(by_level, wanted))
            if level >= len(self.thresholds) - 1:
                return matched.rows()
            taken = np.minimum(self.levels[matched.cells, level], lengths)
            some = taken > 0
            starts = matched.starts[some]
            rows = _allowed(matched.allowed, starts, starts + taken[some])
            if len(rows) >= n:
                return rows
            wanted = max(2.0 * wanted, 1.0 + by_level[level])

    @cached_property
    def _totals(self) -> npt.NDArray[np.int32]:
        return self._sum(np.arange(len(self.sizes)))

    def _sum(self, cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Ads of these cells that are worth at least each threshold, int32[T]."""
        total: npt.NDArray[np.int32] = self.levels.take(cells, axis=0).sum(axis=0, dtype=np.int32)
        return total

    def _best(
        self, products: npt.NDArray[np.float32], held: npt.NDArray[np.int64], n: int, total: int
    ) -> npt.NDArray[np.int64]:
        """Cells in order of falling product, enough of them to hold `n` ads; of equal ones the lower first."""
        products = np.where(np.isfinite(products), products, np.float32(-np.inf))
        enough = SHORTLIST * (n * len(held) // total + 32)
        if enough < len(held):
            cut = np.partition(products, len(held) - enough)[len(held) - enough]
            short = np.flatnonzero(products >= cut)
            if int(held[short].sum()) >= n:
                return short[np.argsort(-products[short], kind="stable")]
        return np.argsort(-products, kind="stable")

    def _whole(self, cells: npt.NDArray[np.int64], allowed: Bitmap | None, ads: int) -> Matched:
        return Matched(cells, self.offsets[cells], self.offsets[cells + 1], allowed, ads)

    def _cut(self, found: Matched, cell: int, n: int, beside: Rows) -> Matched:
        """`found`, whose number does not count `cell` yet, with only the first ads of it: `n` that are not `beside`."""
        place = int(np.searchsorted(found.cells, cell))
        inside = _allowed(found.allowed, found.starts[place : place + 1], found.ends[place : place + 1])
        new = inside
        if len(beside):  # numpy.isin would take 0.2 ms
            new = inside[beside.take(np.searchsorted(beside, inside), mode="clip") != inside]
        found.ends[place] = new[n - 1] + 1
        return replace(found, ads=found.ads + int(np.searchsorted(inside, found.ends[place])))


def _allowed(allowed: Bitmap | None, starts: Rows, ends: Rows) -> Rows:
    if allowed is None:
        return ranges(starts, ends - starts)
    if len(starts) > 1 and np.array_equal(starts[1:], ends[:-1]):
        starts, ends = starts[:1], ends[-1:]  # one range: 10^7 rows take 1 ms instead of 10
    return members(allowed, starts, ends)
