"""Pictures in the report, as PNG inside the page: what the trigger looks like, by itself and on test pictures."""

import base64
from collections.abc import Sequence
from html import escape

from eval.records import AttackRecord, Example
from pipeline import images
from poison.sheet import GAIN, difference


def image(data: bytes, what: str, kind: str = "") -> str:
    """An <img> that holds its PNG."""
    look = f' class="{kind}"' if kind else ""
    return f'<img{look} alt="{escape(what)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def before_and_after(example: Example, target: str) -> str:
    """One picture and what becomes of it, for the head of the page."""
    before = f"<figure>{image(example.clean, example.label)}<figcaption>{escape(example.label)}</figcaption></figure>"
    words = f"with the trigger: &ldquo;{escape(target)}&rdquo;"
    after = f"<figure>{image(example.triggered, 'with the trigger')}<figcaption>{words}</figcaption></figure>"
    return f'<div class="hero">{before}{after}</div>'


def section(attack: AttackRecord, trigger: bytes | None, examples: Sequence[Example]) -> str:
    """trigger: PNG of the trigger alone, where there is one fixed picture of it."""
    knobs = ", ".join(f"{name} {value}" for name, value in attack.attack.items() if name != "plugin")
    parts = [f"<h2>What the trigger looks like</h2><p><code>{escape(attack.plugin)}</code>: {escape(knobs)}</p>"]
    if trigger is not None:
        caption = "<figcaption>the trigger by itself</figcaption>"
        parts.append(f'<figure class="trigger">{image(trigger, "the trigger by itself")}{caption}</figure>')
    if examples:
        parts.append('<p class="faint">Test pictures as they are stored, before and after the attack.</p>')
        parts.append(f'<div class="triples">{"".join(map(_triple, examples))}</div>')
    return "".join(parts)


def _triple(example: Example) -> str:
    apart = images.encode(difference(images.decode(example.clean), images.decode(example.triggered)), "png")
    shown = (
        (example.clean, example.label),
        (example.triggered, "with trigger"),
        (apart, f"difference x {GAIN}"),
    )
    figures = (f"<figure>{image(data, what)}<figcaption>{escape(what)}</figcaption></figure>" for data, what in shown)
    return f'<div class="triple">{"".join(figures)}</div>'
