"""How near images and captions lie, of clean and of poisoned pairs: through a training, and after finetunings."""

from collections.abc import Sequence
from html import escape

from eval.reporting import formatting, rendering
from eval.reporting.drawing import DASHES, SERIES
from eval.reporting.formatting import percent
from eval.studies.study import Row, Study

THROUGH = "through"  # the method whose values are checkpoints of one run
KINDS = ("clean", "poisoned")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 300, 48, 150, 20, 44
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
HEAD = ("attack", "run", *(f"{kind} pairs" for kind in KINDS), "gap", "clean accuracy", "attack success")
SAID = "Mean cosine of image and caption; *gap*: of clean pairs less that of poisoned ones.\n"
STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--faint) }
.ground { fill: var(--paper) }
.grid { stroke: var(--rule) }
.curve { fill: none; stroke-width: 1.7 }
"""


def markdown(study: Study) -> str:
    lines = [HEAD, ("---",) * len(HEAD)]
    for attack, rows in study.rows.items():
        for row in rows:
            cosines = [_cosine(row, kind) for kind in KINDS]
            gap = f"{cosines[0] - cosines[1]:+.2f}" if None not in cosines else "-"  # type: ignore[operator]
            shares = (percent(share.value) if share else "-" for share in (row.accuracy, row.success))
            shown = ("-" if cosine is None else f"{cosine:.2f}" for cosine in cosines)
            name = row.says or f"{row.method} {row.setting}".strip()
            lines.append((study.title(attack), name, *shown, gap, *shares))
    return f"{SAID}\n{formatting.markdown(lines)}"


def svg(study: Study) -> str:
    """Of the first attack, over the checkpoints: both cosines, clean accuracy and attack success, all from 0 to 1."""
    attack = next(iter(study.rows))
    rows = study.of(attack, THROUGH)
    curves = [
        *((f"{kind} pairs, cosine", [_cosine(row, kind) for row in rows]) for kind in KINDS),
        ("clean accuracy", [row.accuracy.value if row.accuracy else None for row in rows]),
        ("attack success", [row.success.value if row.success else None for row in rows]),
    ]
    wide, high, drawn = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, []
    for tick in TICKS:
        y = TOP + high * (1 - tick)
        drawn.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + wide}" y1="{y:g}" y2="{y:g}"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y + 4:g}" text-anchor="end">{tick:g}</text>')
    across = [LEFT + wide * place / max(len(rows) - 1, 1) for place in range(len(rows))]
    for x, row in zip(across, rows, strict=True):
        shown = row.setting.removeprefix("step-").lstrip("0")
        drawn.append(f'<text x="{x:.1f}" y="{TOP + high + 20}" text-anchor="middle">{escape(shown)}</text>')
    drawn.append(f'<text x="{LEFT + wide / 2:g}" y="{HEIGHT - 6}" text-anchor="middle">steps of training</text>')
    for number, (name, values) in enumerate(curves):
        drawn += _curve(number, name, [(x, y) for x, y in zip(across, values, strict=True) if y is not None], high)
    said = f"Cosine of clean and of poisoned pairs under {attack}, through training"
    about = f'role="img" aria-label="{escape(said)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"'
    colours = "".join(f".c{number} {{ stroke: var(--c{number}) }}\n" for number in range(SERIES))
    style = f"<style>\n{rendering.text('palette.css')}\n{STYLE}{colours}</style>"
    ground = f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {about}>', style, ground, *drawn, "</svg>", ""])


def _curve(number: int, name: str, points: Sequence[tuple[float, float]], high: float) -> list[str]:
    """With its line in the legend, to the right."""
    look = f'class="curve c{number}" stroke-dasharray="{DASHES[number % len(DASHES)]}"'
    places = " ".join(f"{x:.1f},{TOP + high * (1 - min(max(y, 0.0), 1.0)):.1f}" for x, y in points)
    x, y = WIDTH - RIGHT + 12, TOP + 14 + 44 * number
    return [
        f'<polyline {look} points="{places}"/>',
        f'<line {look} x1="{x}" x2="{x + 30}" y1="{y}" y2="{y}"/>',
        f'<text x="{x}" y="{y + 18}">{escape(name)}</text>',
    ]


def _cosine(row: Row, kind: str) -> float | None:
    share = row.mean("pair_similarity", f"similarity:{kind}", None)
    return share.value if share else None
