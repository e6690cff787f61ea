"""Names beside points."""

import itertools

import pytest

from benchmarks.leaderboard.naming import MARKER, RADII, Box, arrange

FRAME = Box(0.0, 0.0, 300.0, 200.0)


def test_a_name_alone_is_right_of_its_point_and_left_of_it_at_the_right_edge() -> None:
    ((radius, box),) = arrange([(150.0, 100.0)], [(40.0, 8.0)], FRAME)
    assert (radius, box.left) == (RADII[0], 156.0)
    ((radius, box),) = arrange([(290.0, 100.0)], [(40.0, 8.0)], FRAME)
    assert (radius, box.right) == (RADII[0], 284.0)


def test_crowded_names_lie_over_nothing() -> None:
    at = [(140.0 + 17 * (i % 3), 80.0 + 11 * (i // 3)) for i in range(12)]
    sizes = [(20.0 + 3 * (i % 4), 8.0) for i in range(12)]
    found = arrange(at, sizes, FRAME)
    assert found == arrange(at, sizes, FRAME)
    assert max(radius for radius, _ in found) > RADII[0]  # beside their points they have no room
    boxes = [box for _, box in found]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    for (x, y), own, (width, height) in zip(at, boxes, sizes, strict=True):
        assert (own.right - own.left, own.top - own.bottom) == pytest.approx((width, height))
        assert own.within(FRAME)
        marker = Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER)
        assert not any(marker.overlaps(box) for box in boxes)


def test_a_picture_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="2 names have no room within 52 points"):
        arrange([(5.0, 5.0), (6.0, 6.0)], [(40.0, 8.0)] * 2, Box(0.0, 0.0, 30.0, 30.0))
