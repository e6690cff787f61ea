"""Names beside the points of a picture, none over another or over a point.

Greedy: points in some order, each name at the first of a fixed list of places, near ones first, that is still free. Of
several orders the one counts whose names are nearest. A name that is not beside its point has a thin line to it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes

RADII = (6.0, 14.0, 22.0, 31.0, 41.0, 52.0)
"""Points (1/72 inch) from the marker's centre to the name's nearest edge."""
DIRECTIONS = ((1, 0.2), (-1, 0.2), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
"""Where a name's nearest edge or corner is, as parts of a radius: right, left, above, below, between."""
MARKER = 3.5
"""Half a side of the square that a marker keeps free, in points."""
SIZE = 8
STEPS = 24
"""Of a line, to see what it crosses."""

Place = tuple[float, float]


class Box(NamedTuple):
    """A rectangle of the picture, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        """Whether they share more than an edge."""
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top

    def holds(self, place: Place) -> bool:
        """Whether a point lies in it."""
        return self.left <= place[0] <= self.right and self.bottom <= place[1] <= self.top

    def within(self, other: "Box") -> bool:
        """Whether no part lies outside of the other."""
        return other.holds((self.left, self.bottom)) and other.holds((self.right, self.top))

    def nearest(self, place: Place) -> Place:
        """Its point that is nearest to one outside."""
        return min(max(place[0], self.left), self.right), min(max(place[1], self.bottom), self.top)


def name_points(axes: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Annotate (name, x, y) in data coordinates; scales, limits and the layout are final by then.

    ValueError when the names have no room.
    """
    figure = axes.figure.get_figure(root=True)
    assert figure is not None, "axes belong to a figure"
    figure.draw_without_rendering()  # lays it out
    unit = 72 / figure.dpi
    frame = axes.get_window_extent()
    inside = Box(frame.x0 * unit, frame.y0 * unit, frame.x1 * unit, frame.y1 * unit)
    notes, at, sizes = [], [], []
    for name, x, y in points:
        note = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=SIZE, va="bottom")
        note.set_in_layout(False)
        extent = note.get_window_extent()
        across, up = axes.transData.transform((x, y)) * unit
        notes.append(note)
        at.append((float(across), float(up)))
        sizes.append((extent.width * unit, extent.height * unit))
    for note, (_, *point), (x, y), (radius, box) in zip(notes, points, at, arrange(at, sizes, inside), strict=True):
        note.set_position((box.left - x, box.bottom - y))
        if radius > RADII[0]:
            to = box.nearest((x, y))
            line = {"arrowstyle": "-", "linewidth": 0.5, "color": "gray", "shrinkA": 0, "shrinkB": 0}
            drawn = axes.annotate(
                "", (point[0], point[1]), (to[0] - x, to[1] - y), textcoords="offset points", arrowprops=line
            )
            drawn.set_in_layout(False)


def arrange(at: Sequence[Place], sizes: Sequence[Place], inside: Box) -> list[tuple[float, Box]]:
    """A radius and a box for each point, of the point's size (width, height), within `inside`.

    ValueError when no order of the points leaves a free place to each.
    """
    numbers = range(len(at))
    orders = [
        [*numbers],
        *(sorted(numbers, key=lambda i: sign * at[i][axis]) for axis in (0, 1) for sign in (1, -1)),
        sorted(numbers, key=lambda i: min((abs(at[i][0] - at[j][0]) for j in numbers if j != i), default=0.0)),
    ]
    found = [each for order in orders if (each := _in_order(order, at, sizes, inside)) is not None]
    if not found:
        raise ValueError(f"{len(at)} names have no room within {RADII[-1]:g} points of their markers")
    return min(found, key=lambda each: sum(radius for radius, _ in each))


def _in_order(
    order: Sequence[int], at: Sequence[Place], sizes: Sequence[Place], inside: Box
) -> list[tuple[float, Box]] | None:
    """The first free place of each, points taken in this order; None when one has none."""
    markers = [Box(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in at]
    found: dict[int, tuple[float, Box]] = {}
    for i in order:
        taken = [*markers[:i], *markers[i + 1 :], *(box for _, box in found.values())]
        for radius, box in _places(at[i], sizes[i]):
            if not box.within(inside) or any(box.overlaps(other) for other in taken):
                continue
            if radius == RADII[0] or not any(other.holds(place) for other in taken for place in _line(at[i], box)):
                found[i] = radius, box
                break
        else:
            return None
    return [found[i] for i in range(len(at))]


def _places(point: Place, size: Place) -> Iterator[tuple[float, Box]]:
    """Where a name of that size may stand, and how far from its point."""
    for radius in RADII:
        for across, up in DIRECTIONS:
            left = point[0] + across * radius + (across - 1) * size[0] / 2
            bottom = point[1] + up * radius + (up - 1) * size[1] / 2
            yield radius, Box(left, bottom, left + size[0], bottom + size[1])


def _line(start: Place, box: Box) -> list[Place]:
    """Places from a point to the nearest one of a box, both included."""
    end = box.nearest(start)
    parts = [part / STEPS for part in range(STEPS + 1)]
    return [(start[0] + (end[0] - start[0]) * part, start[1] + (end[1] - start[1]) * part) for part in parts]
