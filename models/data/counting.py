"""What is gathered in one pass over a log of any length: how often values occur, and what numbers look like."""

import numpy as np
import numpy.typing as npt
import polars as pl

from models.data.readers.raw import CHUNK_ROWS

SAMPLE = 200_000
"""Numbers kept for bucket edges: a quantile of so many is off by at most 0.3 % of the mass (3 standard errors)."""


class Counts:
    """How often each value of a column occurs. Memory grows with distinct values, not with rows."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._settled = 0
        self._pending = 0

    def add(self, values: pl.Series) -> None:
        """Count the values of one piece; nulls do not count, of lists each element does."""
        if isinstance(values.dtype, pl.List):
            values = values.explode(empty_as_null=False, keep_nulls=False)
        self.add_counts(
            values.rename("value").to_frame().drop_nulls().group_by("value").agg(count=pl.len().cast(pl.Int64))
        )

    def add_counts(self, counts: pl.DataFrame) -> None:
        """Add a frame of `value` and `count` (Int64)."""
        if counts.is_empty():
            return
        self._frames.append(counts)
        self._pending += len(counts)
        if self._pending > self._settled + CHUNK_ROWS:
            self._settle()

    def _settle(self) -> None:
        self._frames = [pl.concat(self._frames).group_by("value").agg(pl.col("count").sum())]
        self._settled, self._pending = len(self._frames[0]), 0

    def total(self, empty: pl.DataType | None = None) -> pl.DataFrame:
        """value, count (Int64), in the order of values. `empty`: the type of value when nothing was counted."""
        if not self._frames:
            return pl.DataFrame(schema={"value": empty or pl.Int64(), "count": pl.Int64()})
        self._settle()
        return self._frames[0].sort("value")


class NumberSample:
    """A uniform sample of a column of numbers, with exact count, mean and variance.

    Each row has a pseudo-random key made from its row number and the seed; the rows with the smallest keys are the
    sample. So it does not depend on how the log is cut in pieces.
    """

    def __init__(self, *, log: bool = False, seed: int = 0, size: int = SAMPLE) -> None:
        self._log = log
        self._seed = np.uint64(seed)
        self._size = size
        self._values = np.zeros(0)
        self._keys = np.zeros(0, dtype=np.uint64)
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> None:
        """`values` [n] of the rows numbered `rows` [n]; what is not finite is left out."""
        finite = np.isfinite(values)
        values, keys = values[finite], _mix(rows[finite].astype(np.uint64), self._seed)
        if not values.size:
            return
        self._add_moments(np.log1p(np.maximum(values, 0.0)) if self._log else values)
        if self._keys.size >= self._size:
            small = keys < self._keys.max()
            values, keys = values[small], keys[small]
        values, keys = np.concatenate((self._values, values)), np.concatenate((self._keys, keys))
        if keys.size > self._size:
            kept = np.argpartition(keys, self._size)[: self._size]
            values, keys = values[kept], keys[kept]
        self._values, self._keys = values, keys

    def _add_moments(self, x: npt.NDArray[np.float64]) -> None:
        """Chan, Golub and LeVeque's update, "Updating formulae and a pairwise algorithm" (1979)."""
        mean, total = float(x.mean()), self.count + x.size
        shift = mean - self.mean
        self._squares += float(((x - mean) ** 2).sum()) + shift**2 * self.count * x.size / total
        self.mean += shift * x.size / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation; 1 for a constant or an empty column, so that it can be divided by."""
        std = float(np.sqrt(self._squares / self.count)) if self.count else 0.0
        return std if std > 0 else 1.0

    def edges(self, buckets: int) -> tuple[float, ...]:
        """Inner borders of at most `buckets` intervals of equal mass."""
        return edges_of(self._values, np.ones(self._values.size, dtype=np.int64), buckets)


def edges_of(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], buckets: int) -> tuple[float, ...]:
    """Borders that split the values, each there `counts` times, into equal masses: ascending, above the smallest."""
    present = np.isfinite(values) & (counts > 0)
    values, counts = values[present], counts[present]
    if not values.size:
        return ()
    order = np.argsort(values, kind="stable")
    values, below = values[order], np.cumsum(counts[order])
    wanted = below[-1] * np.arange(1, buckets) / buckets
    # The first value with more than the wanted mass at or below it begins the next interval.
    borders = np.unique(values[np.minimum(np.searchsorted(below, wanted, side="right"), values.size - 1)])
    return tuple(float(border) for border in borders if border > values[0])


def moments_of(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], *, log: bool) -> tuple[float, float]:
    """Mean and standard deviation of values that occur `counts` times; (0, 1) for none, std 1 for a constant."""
    present = np.isfinite(values) & (counts > 0)
    x, weight = values[present], counts[present]
    if not x.size:
        return 0.0, 1.0
    x = np.log1p(np.maximum(x, 0.0)) if log else x
    mean = float(np.average(x, weights=weight))
    std = float(np.sqrt(np.average((x - mean) ** 2, weights=weight)))
    return mean, std if std > 0 else 1.0


def _mix(rows: npt.NDArray[np.uint64], seed: np.uint64) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea and Flood, OOPSLA 2014): a pseudo-random 64-bit number for each row number."""
    with np.errstate(over="ignore"):
        z = (rows + np.uint64(1) + seed * np.uint64(0xD1B54A32D192ED03)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
