"""Small SVG figures as text: a strip of shares with their intervals, and a chart of curves. No library, no script.

Colours are CSS classes (style.py), so that a page is readable in light, in dark and on paper; series differ by
shape or dash too, for eyes and printers without colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

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


def strip(marks: Sequence[Mark], floor: float | None, label: str) -> str:
    """Shares on one axis from 0 to 100%, as wide as the page lets it; floor: where a dashed line stands."""
    parts = [f'<line class="grid" x1="{x}%" x2="{x}%" y1="0" y2="100%"/>' for x in (0, 25, 50, 75, 100)]
    if floor is not None:
        parts.append(f'<line class="floor" x1="{_percent(floor)}" x2="{_percent(floor)}" y1="0" y2="100%"/>')
    for number, mark in enumerate(marks):
        down = LANE * number - LANE * (len(marks) - 1) / 2  # pixels from the middle
        x = _percent(mark.value)
        whisker = f'x1="{_percent(mark.low)}" x2="{_percent(mark.high)}" y1="50%" y2="50%"'
        whisker = f'<line class="whisker {mark.kind}" {whisker}/>'
        if mark.bar:
            bar = f'<rect class="{mark.kind}" y="50%" width="{x}" height="9" transform="translate(0 -4.5)"/>'
            end = f'<rect class="{mark.kind}" x="{x}" y="50%" width="2" height="13" transform="translate(-1 -6.5)"/>'
            drawn = bar + end + whisker
        else:
            drawn = f'{whisker}<circle class="{mark.kind}" cx="{x}" cy="50%" r="4.5"/>'
        parts.append(f'<g transform="translate(0 {down:g})">{drawn}</g>')
    return f'<svg class="strip" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'


def scale() -> str:
    """The axis under a column of strips."""
    anchors = {0: "start", 100: "end"}
    texts = (
        f'<text x="{x}%" y="12" text-anchor="{anchors.get(x, "middle")}">{x}%</text>' for x in (0, 25, 50, 75, 100)
    )
    return f'<svg class="scale" height="16" aria-hidden="true">{"".join(texts)}</svg>'


def curves(series: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str) -> str:
    """Curves over one pair of axes, with a legend. series: (name, points in order of x), averaged in bins if long."""
    kept = [(name, thinned(points)) for name, points in series if points]
    if not kept:
        return "<p>No curve was recorded.</p>"
    xs = [x for _, points in kept for x, _ in points]
    ys = [y for _, points in kept for _, y in points if math.isfinite(y)]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys, default=0.0), max(ys, default=1.0))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        above = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - above * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in y_ticks:
        _, y = place(x_ticks[0], tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,g}</text>')
    for tick in x_ticks:
        x, _ = place(tick, y_ticks[0])
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 24}" text-anchor="middle">{tick:,g}</text>')
    legend = []
    for number, (name, points) in enumerate(kept):
        look = f'class="curve c{number % SERIES}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points if math.isfinite(point[1])))
        parts.append(f'<polyline {look} points="{path}"/>')
        swatch = f'<line {look} x1="0" x2="26" y1="4" y2="4"/>'
        swatch = f'<svg class="swatch" width="26" height="8" aria-hidden="true">{swatch}</svg>'
        legend.append(f"<li>{swatch} {escape(name)}</li>")
    about = f'class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}"'
    chart = f'<p class="axis">{escape(title)}</p><svg {about}>{"".join(parts)}</svg>'
    return f'{chart}<ul class="legend">{"".join(legend)}</ul>'


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


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
