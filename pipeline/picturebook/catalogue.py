"""What a book of so many things has in it: the first fourteen are functions (outlines.py), the others data."""

from pipeline.picturebook import figures
from pipeline.picturebook.outlines import OUTLINES
from pipeline.picturebook.pen import Pen
from pipeline.picturebook.words import KINDS, THINGS, Kind

USUAL = len(THINGS)
ALL: tuple[str, ...] = (*THINGS, *figures.figures())


def names(things: int = USUAL) -> tuple[str, ...]:
    """The things of a book, in the order of their labels: a larger book begins with those of a smaller.

    Raises ValueError if there are not so many.
    """
    if not 2 <= things <= len(ALL):
        raise ValueError(f"a picture book has 2 to {len(ALL)} things, not {things}")
    return ALL[:things]


def kind(name: str) -> Kind:
    return KINDS[name] if name in KINDS else figures.figures()[name].kind


def draw(pen: Pen, name: str) -> None:
    if name in OUTLINES:
        OUTLINES[name](pen)
    else:
        figures.draw(pen, figures.figures()[name])
