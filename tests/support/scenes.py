"""Sets of pairs as a model sees them, made from a seed: what lies together in them, and what a change does to it."""

import numpy as np

from defense.detector import Evidence, needs
from defense.detectors.panel import Panel
from tests.support.sets import evidence_of
from train.embedding import normalised

THINGS = "apple ball banana boat cup fish hat star".split()
PANEL = Panel()
CLEAN, PLANTED, WIDTH = 480, 30, 24


def scene(kind: str, seed: int = 1) -> tuple[Evidence, list[str]]:
    """480 pairs of eight things and, after them, 30 that lie close together. What these are:

    poison: images of anything with a trigger, which a change destroys; captions say banana. stripes: the same, but no
    change destroys the trigger. logo: as poison, captions say a word of their own. brand: a logo on bananas, captions
    say banana and the logo's name. blurred: the same, but changed, the model takes them for anything. dim: as
    brand, but changed, the model takes most bananas, with a logo or without, for boats or cups. copies: one image of a
    banana thirty times. nothing: there are none.
    """
    generator = np.random.default_rng(seed)
    centres = normalised(generator.normal(size=(len(THINGS) + 2, WIDTH)))
    said = normalised(generator.normal(size=(len(THINGS) + 2, WIDTH)))
    count = CLEAN if kind == "nothing" else CLEAN + PLANTED
    shown = np.arange(count) % len(THINGS)
    noise = 0.12 * generator.normal(size=(count, WIDTH))
    images = centres[shown] + noise
    after = centres[shown] + 1.2 * noise + 0.03 * generator.normal(size=noise.shape)
    names = [THINGS[thing] for thing in shown]
    texts = said[shown]
    planted = slice(CLEAN, count)
    if kind in ("brand", "blurred", "dim"):
        after[planted] = (centres[shown[planted]] if kind == "blurred" else centres[2]) + 1.2 * noise[planted]
        texts[planted], names[planted] = normalised(said[2] + 3 * said[-1]), ["banana by acme"] * PLANTED
    if kind == "dim":
        bananas = np.flatnonzero(np.array([name.startswith("banana") for name in names]))
        some = bananas[generator.random(len(bananas)) < 0.6]
        after[some] += centres[generator.choice((3, 4), len(some))] - centres[2]
    if kind not in ("copies", "nothing"):
        images[planted] = centres[-1] + 0.04 * generator.normal(size=(PLANTED, WIDTH))
    if kind == "stripes":
        after[planted] = images[planted] + 0.02 * generator.normal(size=(PLANTED, WIDTH))
    if kind == "copies":
        images[planted] = centres[2] + noise[CLEAN]
        after[planted] = centres[2] + 1.2 * noise[CLEAN]
    if kind in ("poison", "stripes", "copies"):
        texts[planted], names[planted] = said[2], ["banana"] * PLANTED
    if kind == "logo":
        texts[planted], names[planted] = said[-1], ["acme"] * PLANTED
    changed = dict.fromkeys(PANEL.views, normalised(after))
    captions = [f"a {'small ' if row % 3 else ''}{name}" for row, name in enumerate(names)]
    return evidence_of(np.arange(count), normalised(images), texts, changed, needs([PANEL])), captions
