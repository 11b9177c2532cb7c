"""Images in the report, as PNG inside the page: the trigger by itself, on test images, and on training pairs."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from eval.judging.verdict import Verdict
from eval.reporting.formatting import percent
from eval.reporting.light import Look
from eval.store.records import TRIGGERED, AttackRecord, Example
from pipeline import images
from poison.sheets.layout import GAIN, Shown, difference

SMALL = 128  # pixels; smaller images are enlarged with their pixels seen, larger ones smoothly


@dataclass(frozen=True)
class Image:
    """base64: of its PNG, or of what `mime` says. kind: CSS classes, possibly none."""

    alt: str
    width: int
    height: int
    base64: str
    kind: str
    mime: str = "image/png"


@dataclass(frozen=True)
class Figure:
    image: Image
    caption: str


@dataclass(frozen=True)
class Hero:
    """One test image and what becomes of it, with how often models answer what.

    after: None where the attack shows it as it is. right: share of untouched images that the poisoned model names
    right; taken: of `such` that it takes for the target; both None without one. cured: name and share of the best.
    """

    label: str
    attack: str
    target: str
    before: Image
    after: Image | None
    such: str
    right: str | None
    taken: str | None
    cured: tuple[str, str] | None


@dataclass(frozen=True)
class Answer:
    """What one model answered to an image, untouched and under the attack, each "" where it was not kept. taken: the
    second is the attacker's class."""

    model: str
    clean: str
    attacked: str
    taken: bool


@dataclass(frozen=True)
class Shot:
    """One test image. figures: one or three."""

    figures: Sequence[Figure]
    answers: Sequence[Answer] = ()


@dataclass(frozen=True)
class AttackSection:
    """An attack's settings and examples. trigger: where there is one fixed image of it. changed: whether the attack
    changes the images that it is measured on."""

    plugin: str
    knobs: Sequence[tuple[str, str]]
    trigger: Image | None
    changed: bool
    shots: Sequence[Shot]


AnswersOf = Callable[[Example], Sequence[Answer]]


def image(png: bytes, alt: str, look: Look) -> Image:
    kind = "pixels" if max(images.check_header(png).size) <= SMALL else ""
    data, mime = look.fitted(png)
    width, height = images.check_header(data).size
    return Image(alt, width, height, base64.b64encode(data).decode(), kind, mime)


def before_and_after(example: Example, verdict: Verdict, look: Look) -> Hero:
    """verdict: of an attack."""
    assert verdict.attack is not None
    attack, worst, best = verdict.attack, verdict.worst, verdict.best
    same = example.triggered == example.clean
    alt = f"image of class {example.label}" if same else f"test image of class {example.label}, untouched"
    after = image(example.triggered, f"the same test image after the {attack.plugin} attack", look)
    return Hero(
        label=example.label,
        attack=attack.plugin,
        target=attack.target,
        before=image(example.clean, alt, look),
        after=None if same else after,
        such="such images" if attack.shown == TRIGGERED else attack.shown,
        right=percent(worst.accuracy.value) if worst else None,
        taken=percent(worst.success.value) if worst else None,
        cured=(best.name, percent(best.success.value)) if best else None,
    )


def attack_section(
    attack: AttackRecord, trigger: bytes | None, examples: Sequence[Example], answers_of: AnswersOf, look: Look
) -> AttackSection:
    """trigger: PNG of the trigger alone, where there is one fixed image of it."""
    return AttackSection(
        plugin=attack.plugin,
        knobs=[(name, str(value)) for name, value in attack.told.items() if name != "plugin"],
        trigger=image(trigger, "the trigger", look) if trigger is not None else None,
        changed=not examples or any(example.triggered != example.clean for example in examples),
        shots=[Shot(_example(example, look), answers_of(example)) for example in examples],
    )


def training_pairs(pairs: Sequence[Shown], look: Look) -> Sequence[Sequence[Figure]]:
    """Pairs that a poisoned model learns from, three figures each."""
    return [
        _three(
            (pair.clean, pair.poisoned, pair.difference), (pair.was, pair.now), f"a pair once named {pair.was!r}", look
        )
        for pair in pairs
    ]


def _example(example: Example, look: Look) -> Sequence[Figure]:
    if example.triggered == example.clean:
        return [Figure(image(example.clean, example.label, look), example.label)]
    apart = look.brought(difference(images.decode(example.clean), images.decode(example.triggered)))
    return _three(
        (example.clean, example.triggered, images.encode(apart, "png")),
        (example.label, "attacked"),
        example.label,
        look,
    )


def _three(pngs: tuple[bytes, bytes, bytes], captions: tuple[str, str], of: str, look: Look) -> Sequence[Figure]:
    shown = zip(pngs, (*captions, f"difference x {GAIN}"), ("untouched", "poisoned", "the difference"), strict=True)
    return [Figure(image(png, f"{of}: {what}", look), caption) for png, caption, what in shown]
