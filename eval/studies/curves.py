"""How near the pairs of a run lie while it learns, as one SVG: a panel for each attack, steps to the right.

Up is the mean cosine of image and caption, of clean and of poisoned pairs, and the attack's success on the same scale
from 0 to 1. The values of the study's knob are steps.
"""

import math
from collections.abc import Iterator
from html import escape

from eval.reporting import rendering
from eval.reporting.drawing import DASHES, ticks
from eval.studies.panels import LETTER, LINE, STYLE
from eval.studies.similarities import KINDS, cosine
from eval.studies.study import Row, Study

WIDTH, COLUMNS, SIDE = 680, 2, 200  # of the figure; panels in a row; height of a panel's axes
LEFT, RIGHT, TOP, BOTTOM = 44, 22, 32, 34  # around the axes
NAMES = (*(f"cosine of {kind} pairs" for kind in KINDS), "attack success")


def svg(study: Study) -> str:
    """A file by itself, in light and in dark."""
    columns = min(COLUMNS, len(study.rows))
    width = WIDTH / columns - LEFT - RIGHT
    head, high = LINE + 6, TOP + SIDE + BOTTOM
    steps = [float(row.setting) for rows in study.rows.values() for row in rows]
    axis = ticks(0.0, max(steps), about=4)
    drawn = []
    for number, attack in enumerate(study.rows):
        down, right = divmod(number, columns)
        place = f"translate({right * WIDTH / columns + LEFT:g} {head + down * high + TOP})"
        drawn.append(f'<g transform="{place}">{"".join(_panel(study, attack, width, axis))}</g>')
    height = head + high * math.ceil(len(study.rows) / columns) + LINE
    below = f'<text x="{WIDTH / 2:g}" y="{height - 8:g}" text-anchor="middle">{escape(study.knob)}</text>'
    said = f"{', '.join(NAMES)} by {study.knob}, under {', '.join(study.rows)}"
    about = f'role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}"'
    colours = "".join(f".c{number} {{ stroke: var(--c{number}) }}\n" for number in range(len(NAMES)))
    ground = f'<rect class="ground" width="{WIDTH}" height="{height:g}"/>'
    body = "\n".join([ground, *_legend(), *drawn, below])
    style = f"<style>\n{rendering.text('palette.css')}\n{STYLE}{colours}</style>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" {about}>\n{style}\n{body}\n</svg>\n'


def _panel(study: Study, attack: str, width: float, axis: list[float]) -> Iterator[str]:
    """From the upper left corner of its axes."""
    yield f'<text class="name" x="0" y="-12">{escape(study.title(attack))}</text>'
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = SIDE * (1 - share)
        yield f'<line class="grid" x1="0" x2="{width:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{share:g}</text>'
    for tick in axis:
        yield f'<text x="{width * tick / axis[-1]:.1f}" y="{SIDE + 20}" text-anchor="middle">{tick:,g}</text>'
    for number, name in enumerate(NAMES):
        there = [(float(row.setting), value) for row in study.rows[attack] if (value := _value(row, name)) is not None]
        points = " ".join(f"{width * x / axis[-1]:.1f},{SIDE * (1 - min(max(y, 0), 1)):.1f}" for x, y in sorted(there))
        yield f'<polyline class="curve c{number}" stroke-dasharray="{DASHES[number]}" points="{points}"/>'


def _value(row: Row, name: str) -> float | None:
    if name == NAMES[-1]:
        return row.success.value if row.success else None
    return cosine(row, KINDS[NAMES.index(name)])


def _legend() -> Iterator[str]:
    x = float(LEFT)
    for number, name in enumerate(NAMES):
        line = f'<path class="curve c{number}" stroke-dasharray="{DASHES[number]}" d="M0 0H34"/>'
        yield f'<g transform="translate({x:g} {LINE - 6})">{line}<text x="42" y="4">{escape(name)}</text></g>'
        x += 42 + LETTER * len(name) + 20
