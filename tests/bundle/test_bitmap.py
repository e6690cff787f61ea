from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bundle import bitmap


@given(st.lists(st.booleans(), max_size=70))
def test_a_bitmap_is_the_mask_it_was_made_of(values: list[bool]) -> None:
    mask = np.array(values, dtype=np.bool_)
    packed = bitmap.pack(mask)
    members = np.flatnonzero(mask)
    assert packed.dtype == np.uint8
    assert packed.size == (len(mask) + 7) // 8
    assert bitmap.unpack(packed, len(mask)).tolist() == values
    assert bitmap.count(packed) == sum(values)
    assert bitmap.test(packed, np.arange(len(mask))).tolist() == values
    assert bitmap.of_rows(members, len(mask)).tolist() == packed.tolist()


def test_rows_may_be_asked_in_any_order_and_type() -> None:
    packed = bitmap.of_rows(np.array([3, 9, 64]), 80)
    assert bitmap.test(packed, np.array([64, 0, 9, 9, 79], dtype=np.int32)).tolist() == [True, False, True, True, False]
    assert bitmap.test(packed, np.array([], dtype=np.int64)).tolist() == []


@given(st.integers(2, 90), st.randoms(use_true_random=False))
def test_what_is_not_in_a_set_never_holds_reserved_rows(rows: int, random: Random) -> None:
    members = [row for row in range(rows) if random.random() < 0.5]
    rest = bitmap.without(bitmap.of_rows(np.array(members, dtype=np.int64), rows), rows)
    wanted = [row for row in range(2, rows) if row not in members]
    assert rest.tolist() == bitmap.of_rows(np.array(wanted, dtype=np.int64), rows).tolist()
    assert bitmap.everything(rows).tolist() == bitmap.of_rows(np.arange(2, rows), rows).tolist()
    assert bitmap.count(rest) == len(wanted)


@given(st.integers(1, 300), st.lists(st.integers(0, 300), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_members_are_counted_and_listed_by_range(rows: int, places: list[int], random: Random) -> None:
    mask = np.array([random.random() < 0.4 for _ in range(rows)], dtype=np.bool_)
    packed = bitmap.pack(mask)
    bounds = np.array(sorted(min(place, rows) for place in places))
    expected = [int(mask[start:end].sum()) for start, end in pairwise(bounds.tolist())]
    assert bitmap.counts(packed, bounds).tolist() == expected
    distinct = np.unique(bounds)
    starts, ends = distinct[:-1:2], distinct[1::2]
    starts = starts[: len(ends)]
    listed = [row for start, end in zip(starts, ends, strict=True) for row in range(start, end)]
    assert bitmap.members(packed, starts, ends).tolist() == [row for row in listed if mask[row]]
    assert bitmap.ranges(starts, ends - starts).tolist() == listed
