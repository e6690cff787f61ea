"""Small charts as SVG, which stand in a page without any script or network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 860, 250
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 36
COLOURS = ("#4c78a8", "#f58518", "#e45756", "#72b7b2", "#54a24b", "#b279a2", "#9d755d", "#eeca3b", "#79706e", "#ff9da6")
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, or a limit."""

    name: str
    at: float
    across: bool = False
    """A limit: a line across, at this height. Otherwise a line upwards, at this second."""


def ticks(lowest: float, highest: float, most: int = 6) -> list[float]:
    """Round numbers from `lowest` to `highest`, at most `most` + 1 of them."""
    span = max(highest - lowest, 1e-9)
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(each for each in (1, 2, 5, 10) if span / (step * each) <= most)
    first = math.ceil(lowest / step - 1e-9)
    return [round(i * step, 9) for i in range(first, math.floor(highest / step + 1e-9) + 1)]


def decades(lowest: float, highest: float) -> list[float]:
    """1, 2, 5, 10, 20, … between the two."""
    found = []
    for power in range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1):
        found += [m * 10.0**power for m in (1, 2, 5) if lowest <= m * 10.0**power <= highest]
    return found


def chart(lines: Sequence[Line], x_name: str, y_name: str, marks: Sequence[Mark] = (), logarithmic: bool = True) -> str:
    """Lines over x. A logarithmic height leaves out what is not above 0. Empty without any point."""
    lines = [Line(each.name, _kept(each.points, logarithmic), each.dots) for each in lines]
    points = [point for line in lines for point in line.points]
    if not points:
        return "<p>No point to draw.</p>"
    heights = [y for _, y in points] + [mark.at for mark in marks if mark.across]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = (min(heights) / 1.3, max(heights) * 1.3) if logarithmic else (0.0, max(max(heights) * 1.1, 1e-6))
    scale: Callable[[float], float] = math.log10 if logarithmic else float

    def x_of(x: float) -> float:
        return LEFT + (x - left) / max(right - left, 1e-9) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        share = (scale(y) - scale(low)) / (scale(high) - scale(low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    drawn = [_tick_y(y_of(y), y) for y in (decades(low, high) if logarithmic else ticks(low, high))]
    drawn += [_tick_x(x_of(x), x) for x in ticks(left, right, 10)]
    for mark in marks:
        if mark.across:
            drawn.append(_across(y_of(mark.at), mark.name))
        elif left <= mark.at <= right:
            drawn.append(_upwards(x_of(mark.at), mark.name))
    for colour, line in zip(COLOURS, lines, strict=False):
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        if line.dots:
            drawn += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{colour}"/>' for x, y in line.points]
    centre = (LEFT + WIDTH - RIGHT) / 2
    middle = (TOP + HEIGHT - BOTTOM) / 2
    drawn.append(f'<text x="{centre}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    drawn.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_name)}</text>'
    )
    return _svg(drawn, HEIGHT) + legend([line.name for line in lines])


def waterfall(parts: Sequence[tuple[str, float, float]], unit: str = "ms") -> str:
    """Bars one after the other: name, median, and a thin line up to the 99th percentile."""
    row = 24
    total = sum(median for _, median, _ in parts)
    reach = max([start + high for (_, _, high), start in zip(parts, _starts(parts), strict=True)] + [total, 1e-6])
    begin, space = 120, WIDTH - 120 - 150

    def x_of(value: float) -> float:
        return begin + value / reach * space

    drawn = []
    for i, ((name, median, high), start) in enumerate(zip(parts, _starts(parts), strict=True)):
        y = i * row
        colour = COLOURS[i % len(COLOURS)]
        left, end = x_of(start), x_of(start + high)
        width = max(x_of(start + median) - left, 1.0)
        drawn += [
            f'<text x="{begin - 8}" y="{y + 16}" text-anchor="end">{escape(name)}</text>',
            f'<line x1="{left:.1f}" y1="{y + 12}" x2="{end:.1f}" y2="{y + 12}" stroke="{colour}"/>',
            f'<rect x="{left:.1f}" y="{y + 4}" width="{width:.1f}" height="16" fill="{colour}"/>',
            f'<text x="{WIDTH - 4}" y="{y + 16}" text-anchor="end">{median:.2f} {unit}, p99 {high:.2f}</text>',
        ]
    return _svg(drawn, row * len(parts) + 6)


def legend(names: Sequence[str]) -> str:
    """Colours and what they stand for."""
    items = [
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for colour, name in zip(COLOURS, names, strict=False)
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def _starts(parts: Sequence[tuple[str, float, float]]) -> list[float]:
    starts, at = [], 0.0
    for _, median, _ in parts:
        starts.append(at)
        at += median
    return starts


def _kept(points: Sequence[Point], logarithmic: bool) -> list[Point]:
    return [(x, y) for x, y in points if y > 0 or not logarithmic]


def _tick_y(at: float, value: float) -> str:
    return (
        f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" class="grid"/>'
        f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>'
    )


def _tick_x(at: float, value: float) -> str:
    return f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>'


def _across(at: float, name: str) -> str:
    return (
        f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" class="limit"/>'
        f'<text x="{LEFT + 4}" y="{at - 4:.1f}">{escape(name)}</text>'
    )


def _upwards(at: float, name: str) -> str:
    return (
        f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" class="limit"/>'
        f'<text x="{at + 4:.1f}" y="{TOP + 10}">{escape(name)}</text>'
    )


def _svg(drawn: Sequence[str], height: int) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img">{"".join(drawn)}</svg>'
