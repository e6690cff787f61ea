"""Behaviour sequences by offset arithmetic: for each request the user's last behaviours strictly before its time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lists:
    """A list a user that does not depend on time: user u has values[offsets[u]:offsets[u+1]], oldest first."""

    values: Int32
    """[n, columns]"""
    offsets: Int64


@dataclass(frozen=True, slots=True)
class Behaviours:
    """Timed behaviours of many users, sorted by user, then time."""

    values: Int32
    """[n, columns]"""
    user: Int64
    """[n], ascending"""
    time: Int64
    """[n]"""


@dataclass(frozen=True, slots=True)
class Sequences:
    """One sequence a request: request r has values[offsets[r]:offsets[r+1]]."""

    values: Int32
    """[n, columns]"""
    offsets: Int64


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the sequences of requests lie: two ranges of `values` each, of the user's list and of what came later."""

    values: Int32
    """[n, columns]"""
    starts: Int64
    """[requests, 2]"""
    ends: Int64
    """[requests, 2]"""

    def sequences(self, first: int, count: int) -> Sequences:
        """The sequences of `count` requests from the one numbered `first`."""
        some = slice(first, first + count)
        index, offsets = ranges(self.starts[some].ravel(), self.ends[some].ravel())
        return Sequences(self.values[index], offsets[::2])


def ranges(starts: Int64, ends: Int64) -> tuple[Int64, Int64]:
    """The numbers of all ranges [start, end) one after another, and their offsets in that, int64[ranges + 1]."""
    lengths = ends - starts
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths), offsets


def before(behaviours: Behaviours, user: Int64, time: Int64) -> tuple[Int64, Int64]:
    """Where, for each request, the user's behaviours strictly before its time start and end, int64[requests] each."""
    times, rank = np.unique(np.concatenate((behaviours.time, time)), return_inverse=True)
    # One number orders (user, time): at most 10^7 users times 10^8 different times, far below 2^63.
    step = np.int64(len(times) + 1)
    placed = behaviours.user * step + rank[: len(behaviours.time)]
    starts = np.searchsorted(placed, user * step)
    ends = np.searchsorted(placed, user * step + rank[len(behaviours.time) :])
    return starts.astype(np.int64), ends.astype(np.int64)


def last(
    limit: int, user: Int64, time: Int64, lists: Lists | None, behaviours: Behaviours | None, columns: int
) -> Windows:
    """Each request's last `limit` behaviours: of the user's list, then of the timed ones strictly before `time`.

    `user` and `time` are int64[requests]; users are numbered as in `lists` and `behaviours`.
    """
    nothing = np.zeros(len(user), dtype=np.int64)
    first, middle = (lists.offsets[user], lists.offsets[user + 1]) if lists is not None else (nothing, nothing)
    starts, ends = before(behaviours, user, time) if behaviours is not None else (nothing, nothing)
    starts = np.maximum(starts, ends - limit)
    first = np.maximum(first, middle - (limit - (ends - starts)))
    parts = [each.values for each in (lists, behaviours) if each is not None]
    values = np.concatenate(parts) if parts else np.zeros((0, columns), dtype=np.int32)
    shift = len(lists.values) if lists is not None else 0
    return Windows(values, np.stack((first, starts + shift), axis=1), np.stack((middle, ends + shift), axis=1))
