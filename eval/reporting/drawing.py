"""Where the lines of small SVG figures go: a strip of shares with their intervals, and a chart of curves.

templates/drawing.html draws them; no library, no script. Colours are CSS classes (templates/page.css), so that a page
is readable in light, in dark and on paper; series differ by shape or dash too, for eyes and printers without colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SERIES = 6  # classes c0 ... c5 of the style sheet; a seventh curve has the first one's colour, but not its dash
DASHES = ("none", "6 3", "2 2.5", "10 3 2 3", "1 4")
WIDTH, HEIGHT = 680, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 24, 14, 34
POINTS = 120
LANE = 17  # pixels between the marks of one strip


@dataclass(frozen=True)
class Mark:
    """A share in [0, 1] with its interval. kind: a CSS class; bar: drawn from zero on, else as a ring."""

    value: float
    low: float
    high: float
    kind: str
    bar: bool


@dataclass(frozen=True)
class Strip:
    """Shares on one axis from 0 to 100%, as wide as the page lets it; floor: where a dashed line stands."""

    marks: Sequence[Mark]
    floor: float | None
    label: str

    @property
    def lanes(self) -> list[tuple[float, Mark]]:
        """Each mark, with the pixels that it lies below the middle."""
        return [(LANE * number - LANE * (len(self.marks) - 1) / 2, mark) for number, mark in enumerate(self.marks)]


@dataclass(frozen=True)
class Curve:
    """colour: of a class c0 ... c5. points: x and y in pixels."""

    name: str
    colour: int
    dash: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes, with a legend. x_ticks, y_ticks: (pixels, number)."""

    title: str
    x_ticks: Sequence[tuple[float, float]]
    y_ticks: Sequence[tuple[float, float]]
    curves: Sequence[Curve]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def chart(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str) -> Chart:
    """series: (name, points in order of x), averaged in bins if long; those without a point are left out."""
    kept = [(name, thinned(points)) for name, points in series if points]
    if not kept:
        return Chart(title, (), (), ())
    xs = [x for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points if math.isfinite(y)]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys, default=0.0), max(ys, default=1.0))

    def across(x: float) -> float:
        return LEFT + (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - TOP - BOTTOM)

    curves = [
        Curve(
            name,
            number % SERIES,
            DASHES[number % len(DASHES)],
            [(across(x), down(y)) for x, y in points if math.isfinite(y)],
        )
        for number, (name, points) in enumerate(kept)
    ]
    return Chart(title, [(across(tick), tick) for tick in x_ticks], [(down(tick), tick) for tick in y_ticks], curves)


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most `most` points: the mean of each bin of neighbours, so that no spike is dropped unseen."""
    size = -(-len(points) // most)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, a step of 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        low, high = low - 0.5, low + 0.5
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, max(last, first + 1) + 1)]
