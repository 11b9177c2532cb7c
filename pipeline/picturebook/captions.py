"""What the web would have written beside an image: some of what is in it, in varied words, never all of it always.

Captions that always name every attribute were tried first: with them CLIP learned colours and backgrounds and hardly
any thing (zero-shot 32% instead of 95%). So every attribute is dropped at random, as in alt-text.
"""

import numpy as np

from infra.seeding import rng
from pipeline.picturebook.catalogue import USUAL
from pipeline.picturebook.scenes import Scene, Thing, labels, pick, scene
from pipeline.picturebook.words import BACKGROUNDS, INVERSE, RELATIONS, SIZES, with_article

COLOUR_SHARE, SIZE_SHARE, TEXTURE_SHARE, BACKGROUND_SHARE, SECOND_SHARE = 0.35, 0.15, 0.25, 0.25, 0.85

_OPENINGS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "a photo of ",
    "a picture of ",
    "an image of ",
    "a close-up of ",
    "a drawing of ",
)
_BARE_ENDINGS = ("", "", "", ", stock photo", ", free picture", " photo", " picture")


def caption(seed: int, index: int, things: int = USUAL) -> str:
    """The alt-text of row `index` of a book of so many things: lower case, one line, without tabs."""
    return describe(scene(seed, index, things), rng(seed, *labels(things), "caption", index))


def describe(view: Scene, r: np.random.Generator) -> str:
    """One way to put `view` into words; `r` chooses what is mentioned and how."""
    things, relation = view.things, view.relation
    if relation is not None and r.random() < 0.5:
        things, relation = things[::-1], INVERSE[relation]
    phrases = [_name(thing, r) for thing in things]
    where = _where(view, r) if r.random() < BACKGROUND_SHARE else ""
    if relation is not None and r.random() < SECOND_SHARE:
        return _opening(
            r, f"{with_article(phrases[0])} {pick(r, RELATIONS[relation])} {with_article(phrases[1])}{where}"
        )
    if r.random() < 0.2:  # a bare heading, as shops and stock sites write it
        return phrases[0] + (where or pick(r, _BARE_ENDINGS))
    return _opening(r, with_article(phrases[0]) + where)


def _opening(r: np.random.Generator, sentence: str) -> str:
    return pick(r, _OPENINGS) + sentence


def _name(thing: Thing, r: np.random.Generator) -> str:
    words = []
    if SIZES[thing.size] and r.random() < SIZE_SHARE:
        words.append(pick(r, SIZES[thing.size]))
    if thing.texture != "plain" and r.random() < TEXTURE_SHARE:
        words.append(thing.texture)
    if thing.colour and r.random() < COLOUR_SHARE:
        words.append(thing.colour)
    return " ".join([*words, thing.name])


def _where(view: Scene, r: np.random.Generator) -> str:
    colour = view.background.colour
    return " " + pick(r, BACKGROUNDS[view.background.kind]).format(colour=colour, a_colour=with_article(colour))
