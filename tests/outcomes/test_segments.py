"""Entries on disk: in the order of their ids, each once, whatever was cut off."""

import json
from pathlib import Path

import pytest

from outcomes.segments import last_id, merge, segments, write_segment
from outcomes.streams import Entry, Id
from tests.outcomes.feeding import NOON, raw_ids

MINUTE = 60_000


def write(out: Path, *at: int) -> None:
    entries = [
        Entry(Id(ms, 0), {b"events": json.dumps({"events": [{"user_id": ms, "kind": "click"}]}).encode()}) for ms in at
    ]
    write_segment(out, "events", entries)


def ids(*at: int) -> list[str]:
    return [f"{ms}-0" for ms in at]


def test_entries_come_back_in_order_from_a_time_on(out: Path) -> None:
    midnight = NOON + 12 * 60 * MINUTE
    write(out, midnight - 2, midnight + 3)
    write(out, midnight + 5)
    write(out, NOON, NOON + 1)
    assert raw_ids(out, "events") == ids(NOON, NOON + 1, midnight - 2, midnight + 3, midnight + 5)
    later = [line["id"] for each in segments(out, "events", midnight + 1) for line in each.lines()]
    assert later == ids(midnight - 2, midnight + 3, midnight + 5)  # a whole segment, which has some
    assert last_id(out, "events") == Id(midnight + 5, 0)
    assert last_id(out, "served") == Id(0, 0)


def test_segments_of_a_span_become_one(out: Path) -> None:
    times = [NOON + i * MINUTE for i in range(25)]
    for at in times:
        write(out, at)
    merge(out, "events", NOON, NOON + 20 * MINUTE, 10 * MINUTE)
    assert len(segments(out, "events")) == 2 + 5
    assert raw_ids(out, "events") == ids(*times)
    merge(out, "events", NOON, NOON + 20 * MINUTE, 10 * MINUTE)
    assert raw_ids(out, "events") == ids(*times)
    assert last_id(out, "events").ms == times[-1]


@pytest.mark.parametrize("left", [1, 2, 3])
def test_a_merge_that_was_cut_off_shows_no_entry_twice_and_is_finished(out: Path, left: int) -> None:
    for i in range(3):
        write(out, NOON + 20 * i, NOON + 20 * i + 5)
    parts = [(each.path, each.path.read_bytes()) for each in segments(out, "events")]
    expected = raw_ids(out, "events")
    merge(out, "events", NOON, NOON + MINUTE, MINUTE)
    for path, content in parts[:left]:  # as if they had not been removed yet
        path.write_bytes(content)
    assert raw_ids(out, "events") == expected
    merge(out, "events", NOON, NOON + MINUTE, MINUTE)
    assert raw_ids(out, "events") == expected
    (folder,) = (out / "raw/events").iterdir()
    assert len(list(folder.iterdir())) == 1
