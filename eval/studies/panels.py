"""The frontiers as one SVG, a panel for each attack: clean accuracy to the right, attack success up.

Lower right is best. A line joins what one method reaches at its settings, the larger the mark the larger the setting;
the chosen one is filled, and its other seeds stand around it as small marks. Methods differ by colour, shape and dash.
Attack success has a square-root scale, since what matters lies near 0.
"""

import math
from collections import Counter
from collections.abc import Iterator
from html import escape

from eval.reporting import rendering
from eval.reporting.drawing import DASHES, SERIES, ticks
from eval.reporting.formatting import percent
from eval.studies.study import FLOOR, ROLES, UNDEFENDED, Planned, Study

WIDTH, COLUMNS, SIDE = 680, 2, 220  # of the figure; panels in a row; height of a panel's axes
LEFT, RIGHT, TOP, BOTTOM = 48, 26, 32, 34  # around the axes
LINE, LETTER, LETTERS_HIGH = 24, 7.6, 13  # height of a line of text; about the width of a letter, and the height
SUCCESS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
SMALL, LEAST, MORE = 2.4, 3.6, 1.1  # radius of other seeds, of the first setting, and what each further one adds
SHAPES = (  # paths of about one area, for a radius of 1
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0 -2 0z",  # circle
    "M-.9 -.9h1.8v1.8h-1.8z",  # square
    "M0 -1.25L1.2 .85H-1.2z",  # triangle
    "M0 -1.3L1.3 0L0 1.3L-1.3 0z",  # diamond
    "M0 1.25L1.2 -.85H-1.2z",  # triangle on its point
)
CROSS = "M-1 -1L1 1M-1 1L1 -1"
STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--faint) }
text { paint-order: stroke; stroke: var(--paper); stroke-width: 3px }
.name { font-weight: 650; fill: var(--ink) }
.ground { fill: var(--paper) }
.grid { stroke: var(--rule) }
.floor { stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 1.5 3 }
.none { stroke: var(--ink) }
.curve { fill: none; stroke-width: 1.7 }
.whisker { stroke-width: 1 }
.mark { fill: var(--paper); stroke-width: 1.8; vector-effect: non-scaling-stroke }
"""


def svg(study: Study) -> str:
    """A file by itself, in light and in dark."""
    columns = min(COLUMNS, len(study.rows))
    panel = Panels(study, WIDTH / columns - LEFT - RIGHT)
    legend, lines = _legend(study)
    head, high = LINE * lines + 6, TOP + SIDE + BOTTOM
    drawn = []
    for number, attack in enumerate(study.rows):
        down, right = divmod(number, columns)
        x, y = right * WIDTH / columns + LEFT, head + down * high + TOP
        drawn.append(f'<g transform="translate({x:g} {y:g})">{"".join(panel.drawn(attack))}</g>')
    height = head + high * math.ceil(len(study.rows) / columns) + LINE
    axes = "to the right clean accuracy, up attack success (square-root scale), with 95% intervals"
    below = f'<text x="{WIDTH / 2:g}" y="{height - 8:g}" text-anchor="middle">{axes}</text>'
    said = f"Clean accuracy and attack success of {', '.join(study.methods)} under {', '.join(study.rows)}"
    about = f'role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
    full = "".join(f".full.c{number} {{ fill: var(--c{number}) }}\n" for number in range(SERIES))
    colours = "".join(f".c{number} {{ stroke: var(--c{number}) }}\n" for number in range(SERIES))
    ground = f'<rect class="ground" width="{WIDTH}" height="{height:g}"/>'
    body = "\n".join([ground, *legend, *drawn, below])
    style = f"<style>\n{rendering.text('palette.css')}\n{STYLE}{colours}{full}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {about}>\n{style}\n{body}\n</svg>\n'


class Panels:
    """All on the same two scales. width: of a panel's axes, in pixels."""

    def __init__(self, study: Study, width: float) -> None:
        self.study, self.width = study, width
        seeds = Counter(cell.seed for cell in study.cells if cell.method not in ROLES)
        self.seed = seeds.most_common(1)[0][0] if seeds else 0  # of the frontiers
        # A setting that ruins a model must not press the others together: it stands at the left edge, with its number.
        there = [(cell.result.accuracy.interval, cell) for cell in study.cells if cell.result]
        wanted = [ends for ends, cell in there if cell.chosen or cell.method in ROLES] or [(0.0, 1.0)]
        self.ticks = ticks(min(low for low, _ in wanted), max(high for _, high in wanted), about=3)

    def drawn(self, attack: str) -> Iterator[str]:
        """From the upper left corner of its axes."""
        rows, width = self.study.rows[attack], self.width
        yield f'<text class="name" x="0" y="-12">{escape(self.study.title(attack))}</text>'
        for share in SUCCESS:
            y = SIDE * (1 - math.sqrt(share))
            yield f'<line class="grid" x1="0" x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{100 * share:g}%</text>'
        for tick in self.ticks:
            x = self._x(tick)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{SIDE}" y2="{SIDE + 4}"/>'
            yield f'<text x="{x:.1f}" y="{SIDE + 20}" text-anchor="middle">{100 * tick:g}%</text>'
        if not any(row.measured for row in rows):
            yield f'<text x="{width / 2:g}" y="{SIDE / 2:g}" text-anchor="middle">not measured yet</text>'
        for row in rows:
            if row.method == FLOOR and row.success:
                y = SIDE * (1 - math.sqrt(row.success.value))
                yield f'<line class="floor" x1="0" x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
            elif row.method == UNDEFENDED:
                for cell in row.cells:
                    yield self._mark(cell, CROSS, "mark none", LEAST + 2 * MORE if cell.seed == self.seed else SMALL)
        yield from self._outside(attack)
        for number, method in enumerate(self.study.methods):
            yield from self._method(attack, method, number)

    def _method(self, attack: str, method: str, number: int) -> Iterator[str]:
        rows, shape, colour = self.study.of(attack, method), SHAPES[number % len(SHAPES)], f"c{number % SERIES}"
        frontier = [cell for row in rows for cell in row.cells if cell.seed == self.seed and cell.result]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self._place, frontier))
        yield f'<polyline class="curve {colour}" stroke-dasharray="{DASHES[number % len(DASHES)]}" points="{points}"/>'
        for strength, row in enumerate(rows):
            look = f"mark {colour}{' full' if row.chosen else ''}"
            for cell in row.cells:
                yield self._mark(cell, shape, look, LEAST + strength * MORE if cell.seed == self.seed else SMALL)

    def _mark(self, cell: Planned, shape: str, look: str, radius: float) -> str:
        """With whiskers, but for a small one. Nothing for a cell without a measurement."""
        if cell.result is None:
            return ""
        x, y = self._place(cell)
        drawn = f'<path class="{look}" d="{shape}" transform="translate({x:.1f} {y:.1f}) scale({radius:g})"/>'
        accuracy, success = cell.result.accuracy, cell.result.success
        if radius != SMALL:
            left, right = map(self._x, accuracy.interval)
            below, above = (SIDE * (1 - math.sqrt(share)) for share in success.interval)
            line = look.replace("mark", "whisker").replace(" full", "")
            drawn = f'<path class="{line}" d="M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {below:.1f}V{above:.1f}"/>{drawn}'
        return drawn

    def _outside(self, attack: str) -> Iterator[str]:
        """The clean accuracies that are left of the axis, each beside its mark, none on top of another."""
        cells = [cell for row in self.study.rows[attack] for cell in row.cells]
        left = [cell.result for cell in cells if cell.result and cell.result.accuracy.value < self.ticks[0]]
        above = float(SIDE)
        for result in sorted(left, key=lambda result: (result.success.value, -result.accuracy.value)):
            above = min(above - LETTERS_HIGH, SIDE * (1 - math.sqrt(result.success.value)) + 4)
            yield f'<text x="14" y="{above:.1f}">&#8592; {percent(result.accuracy.value, 0)}</text>'

    def _x(self, accuracy: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return min(max((accuracy - low) / (high - low), 0.0), 1.0) * self.width

    def _place(self, cell: Planned) -> tuple[float, float]:
        assert cell.result is not None
        return self._x(cell.result.accuracy.value), SIDE * (1 - math.sqrt(cell.result.success.value))


def _legend(study: Study) -> tuple[list[str], int]:
    """What the marks mean, and in how many lines."""
    items = []
    for number, method in enumerate(study.methods):
        colour = f"c{number % SERIES}"
        line = f'<path class="curve {colour}" stroke-dasharray="{DASHES[number % len(DASHES)]}" d="M0 0H34"/>'
        mark = (
            f'<path class="mark {colour}" d="{SHAPES[number % len(SHAPES)]}" transform="translate(17 0) scale(4.7)"/>'
        )
        items.append((line + mark, method))
    kinds = {cell.method for cell in study.cells}
    if UNDEFENDED in kinds:
        items.append((f'<path class="mark none" d="{CROSS}" transform="translate(17 0) scale(5)"/>', "undefended"))
    if FLOOR in kinds:
        items.append(('<path class="floor" d="M0 0H34"/>', "never poisoned"))
    filled = f'<path class="mark c5 full" d="{SHAPES[0]}" transform="translate(12 0) scale(4.7)"/>'
    small = f'<path class="mark c5 full" d="{SHAPES[0]}" transform="translate(26 0) scale({SMALL})"/>'
    items.append((filled + small, f"chosen {study.knob}, other seeds small"))
    texts, x, lines = [], float(LEFT), 1
    for drawn, words in items:
        wide = 42 + LETTER * len(words) + 20
        if x + wide > WIDTH and x > LEFT:
            x, lines = float(LEFT), lines + 1
        shift = f"translate({x:g} {LINE * lines - 6})"
        texts.append(f'<g transform="{shift}">{drawn}<text x="42" y="4">{escape(words)}</text></g>')
        x += wide
    return texts, lines
