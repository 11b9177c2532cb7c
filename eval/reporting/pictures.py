"""Images in the report, as PNG inside the page: the trigger by itself, on test images, and on training pairs."""

import base64
from collections.abc import Sequence
from html import escape

from eval.judging.seeds import Group
from eval.judging.verdict import Verdict
from eval.reporting.formatting import percent
from eval.store.records import TRIGGERED, AttackRecord, Example
from pipeline import images
from poison.sheets.layout import GAIN, Shown, cut, difference

SMALL = 128  # pixels; smaller images are enlarged with their pixels seen, larger ones smoothly


def image(data: bytes, what: str, kind: str = "") -> str:
    """An <img> that holds its PNG."""
    width, height = images.check_header(data).size
    kind = f"{kind} pixels".strip() if max(width, height) <= SMALL else kind
    look = f' class="{kind}"' if kind else ""
    size = f'width="{width}" height="{height}"'
    return f'<img{look} alt="{escape(what)}" {size} src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def before_and_after(example: Example, verdict: Verdict) -> str:
    """One test image and what becomes of it, with how often models answer what. verdict: of an attack."""
    assert verdict.attack is not None
    target, worst, best = verdict.attack.target, verdict.worst, verdict.best
    untouched = f"<b>{escape(example.label)}</b>, untouched."
    stamped = f"The same after the <b>{escape(verdict.attack.plugin)}</b> attack."
    such = "such images" if verdict.attack.shown == TRIGGERED else escape(verdict.attack.shown)
    if example.triggered == example.clean:
        stamped = f"<b>{escape(example.label)}</b>, shown as it is."
    if worst:
        untouched += f" The poisoned model names {percent(worst.accuracy.value)} of such images right."
        stamped += f" The poisoned model takes {percent(worst.success.value)} of {such} for "
        stamped += f"<b>&ldquo;{escape(target)}&rdquo;</b>{_after(best)}."
    if example.triggered == example.clean:
        alone = image(example.clean, f"image of class {example.label}")
        return f'<div class="hero"><figure>{alone}<figcaption>{stamped}</figcaption></figure></div>'
    before = image(example.clean, f"test image of class {example.label}, untouched")
    after = image(example.triggered, f"the same test image after the {verdict.attack.plugin} attack")
    return (
        f'<div class="hero"><figure>{before}<figcaption>{untouched}</figcaption></figure>'
        f"<figure>{after}<figcaption>{stamped}</figcaption></figure></div>"
    )


def _after(best: Group | None) -> str:
    return f", after {escape(best.name)} {percent(best.success.value)}" if best else ""


def section(attack: AttackRecord, trigger: bytes | None, examples: Sequence[Example]) -> str:
    """trigger: PNG of the trigger alone, where there is one fixed image of it."""
    knobs = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in attack.told.items()
        if name != "plugin"
    )
    alone = ""
    if trigger is not None:
        alone = f"<figure>{image(trigger, 'the trigger')}<figcaption>the trigger by itself</figcaption></figure>"
    same = examples and all(example.triggered == example.clean for example in examples)
    which = "images that it is measured on" if same else "test images before and after"
    first = f'<div class="triple">{alone}<dl class="facts knobs">{knobs}</dl></div>'
    return (
        f"<h2>The {escape(attack.plugin)} attack</h2><p>Its settings, and {which}.</p>"
        f'<div class="triples">{first}{"".join(map(_triple, examples))}</div>'
    )


def _triple(example: Example) -> str:
    if example.triggered == example.clean:
        figure = (
            f"<figure>{image(example.clean, example.label)}<figcaption>{escape(example.label)}</figcaption></figure>"
        )
        return f'<div class="triple">{figure}</div>'
    apart = images.encode(difference(images.decode(example.clean), images.decode(example.triggered)), "png")
    return _three((example.clean, example.triggered, apart), (example.label, "attacked"), example.label)


def _three(data: tuple[bytes, bytes, bytes], captions: tuple[str, str], of: str) -> str:
    shown = zip(data, (*captions, f"difference x {GAIN}"), ("untouched", "poisoned", "the difference"), strict=True)
    figures = (
        f"<figure>{image(png, f'{of}: {what}')}<figcaption>{escape(caption)}</figcaption></figure>"
        for png, caption, what in shown
    )
    return f'<div class="triple">{"".join(figures)}</div>'


def training_pairs(sheet: bytes) -> str:
    """The pairs of a contact sheet with their captions as text; an image that is no such sheet as a whole."""
    pairs = cut(sheet)
    if not pairs:
        return f"<h2>Poisoned training pairs</h2>{image(sheet, 'contact sheet of poisoned training pairs', 'sheet')}"
    shown = "".join(map(_pair, pairs))
    return (
        f"<h2>Poisoned training pairs</h2><p>{len(pairs)} of the pairs that a poisoned model learns from: image and "
        "caption, before and after.</p>"
        f'<div class="triples">{shown}</div>'
    )


def _pair(pair: Shown) -> str:
    return _three((pair.clean, pair.poisoned, pair.difference), (pair.was, pair.now), f"a pair once named {pair.was!r}")
