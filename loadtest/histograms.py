"""Latencies that add up over processes: HdrHistogram (Gil Tene), 1 µs to 2 minutes, values within 0.1 %."""

from collections.abc import Iterable
from typing import Self

from hdrh.histogram import HdrHistogram

LOWEST_US, HIGHEST_US = 1, 120_000_000
DIGITS = 3
WINDOW_DIGITS = 2
"""Of the many small ones that the picture over time is made of: within 1 %."""


class Histogram:
    """Milliseconds."""

    def __init__(self, digits: int = DIGITS) -> None:
        self._hdr = HdrHistogram(LOWEST_US, HIGHEST_US, digits)

    @classmethod
    def of(cls, milliseconds: Iterable[float], digits: int = DIGITS) -> Self:
        """All of these."""
        made = cls(digits)
        for each in milliseconds:
            made.record(each)
        return made

    @classmethod
    def decode(cls, text: str, digits: int = DIGITS) -> Self:
        """What `encode` wrote."""
        made = cls(digits)
        made._hdr.decode_and_add(text)
        return made

    def encode(self) -> str:
        """The usual form of HdrHistogram, compressed, as base64."""
        return str(self._hdr.encode().decode())

    def record(self, milliseconds: float) -> None:
        """One value; those outside of the range count as its ends."""
        self._hdr.record_value(min(max(round(milliseconds * 1e3), LOWEST_US), HIGHEST_US))

    def add(self, other: Self) -> None:
        """Everything that `other` has seen."""
        self._hdr.add(other._hdr)

    def values(self) -> list[tuple[float, int]]:
        """Milliseconds and how many of them, ascending."""
        found = self._hdr.get_recorded_iterator()
        return [(each.value_iterated_to / 1e3, int(each.count_at_value_iterated_to)) for each in found]

    @property
    def count(self) -> int:
        """How many values."""
        return int(self._hdr.get_total_count())

    @property
    def mean(self) -> float:
        """Milliseconds; 0 without values."""
        return float(self._hdr.get_mean_value()) / 1e3 if self.count else 0.0

    @property
    def maximum(self) -> float:
        """Milliseconds; 0 without values."""
        return float(self._hdr.get_max_value()) / 1e3 if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Milliseconds; 0 without values."""
        return float(self._hdr.get_value_at_percentile(percent)) / 1e3 if self.count else 0.0
