"""Things as data: figures.txt says of each what it is called, how it occurs and of which parts it is drawn."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from pipeline.picturebook.outlines import BARK, CREAM, GLASS, LEAF, STEEL
from pipeline.picturebook.pen import CIRCLE, DARK, Pen, Points, curve, shade
from pipeline.picturebook.words import ANY, CLOTH, COLOURS, RGB, Kind

FILE = Path(__file__).with_name("figures.txt")
PAINTS: dict[str, RGB] = COLOURS | {
    "leaf": LEAF, "bark": BARK, "glass": GLASS, "steel": STEEL, "cream": CREAM, "dark": DARK,
}  # fmt: skip
SHADES = {"dim": 0.62, "light": 1.35}
RIM = 0.09  # how much wider a line's dark edge is
STEPS = 6  # of a smooth line, from one of its points to the next


@dataclass(frozen=True)
class Part:
    """An outline to fill, or, with a width, a line to draw. points: float64 (n, 2). paint: None for the own colour."""

    points: Points
    paint: str | None
    width: float | None


@dataclass(frozen=True)
class Figure:
    kind: Kind
    parts: tuple[Part, ...]


def draw(pen: Pen, figure: Figure) -> None:
    """Draw its parts in order, each thing a little wider above or below, or slanted, than another of its name.

    Lines in the own colour that follow each other are drawn at once, all rims before all colours: one body.
    """
    wider, slant, bold = (np.array(pen.thing.form) - 0.5) * (0.24, 0.2, 0.2)

    def bent(points: Points) -> Points:
        x, y = points.T
        return np.stack([x * (1 + wider * y) + slant * y, y], axis=1)

    for stroked, parts in groupby(figure.parts, lambda part: part.width is not None and part.paint is None):
        if stroked:
            lines = [(bent(part.points), (part.width or 0.0) * (1 + bold)) for part in parts]
            for rgb, extra in ((shade(pen.rgb, 0.5), RIM), (pen.rgb, 0.0)):
                for points, width in lines:
                    pen.stroke(points, width + extra, rgb)
            continue
        for part in parts:
            if part.paint is None:
                pen.body(bent(part.points))
            elif part.width is None:
                pen.shape(bent(part.points), _rgb(pen, part.paint))
            else:
                pen.stroke(bent(part.points), part.width, _rgb(pen, part.paint))


@functools.cache
def figures() -> dict[str, Figure]:
    """What figures.txt holds, by name, in its order."""
    lines = (line for line in FILE.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    return dict(map(parsed, lines))


def parsed(line: str) -> tuple[str, Figure]:
    """One line of figures.txt: name and figure. Its grammar stands at the head of that file."""
    name, colours, traits, parts = (field.strip() for field in line.split("|"))
    named = {"any": ANY, "metal": ("grey", "grey", "golden", "black")}
    told = tuple(one for word in colours.split() for one in named.get(word, (word,)))
    assert set(told) <= COLOURS.keys(), f"{name}: {colours}"
    degrees = [float(word) for word in traits.split() if word.isdigit()]
    kind = Kind(
        told,
        CLOTH if "cloth" in traits else ("plain",),
        lean_degrees=degrees[0] if degrees else 12.0,
        flips="still" not in traits,
    )
    return name, Figure(kind, tuple(one for part in parts.split(";") for one in _parts(part.split())))


def _parts(words: list[str]) -> Iterator[Part]:
    """The parts that one phrase stands for, such as `5x oval.red/8 0,-50 20,20`."""
    first = words[0]
    if first == "mirror":
        for part in _parts(words[1:]):
            yield from (part, replace(part, points=part.points * (-1.0, 1.0)))
    elif first[:-1].isdigit():
        for turn in np.arange(int(first[:-1])) * 2 * np.pi / int(first[:-1]):
            around = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            yield from (replace(part, points=part.points @ around) for part in _parts(words[1:]))
    else:
        verb, _, width = first.partition("/")
        verb, _, paint = verb.partition(".")
        points = np.array([[float(number) for number in word.split(",")] for word in words[1:]]) / 100
        if verb in ("bands", "columns"):
            yield from _striped(points, paint.split(","), upright=verb == "columns")
            return
        assert not paint or paint in PAINTS or paint in SHADES, f"{paint} is no colour of a part"
        yield Part(_outline(verb, points), paint or None, float(width) / 100 if width else None)


def _outline(verb: str, points: Points) -> Points:
    if verb in ("area", "line"):
        return points
    if verb == "round":
        return curve(*points)
    if verb == "bend":
        return _smooth(points)
    if verb in ("half", "soft"):
        left = points[(points[:, 0] > 0)][::-1] * (-1.0, 1.0)
        whole = np.concatenate([points, left])
        return curve(*whole) if verb == "soft" else whole
    if verb in ("oval", "ring"):
        ring = CIRCLE * points[1] + points[0]
        return np.concatenate([ring, ring[:2]]) if verb == "ring" else ring
    assert verb == "box", f"{verb} is no verb of figures.txt"
    return _box(*points)


def _box(one: Points, other: Points) -> Points:
    return np.array([one, (other[0], one[1]), other, (one[0], other[1])])


def _smooth(points: Points) -> Points:
    """An open Catmull-Rom spline through `points`, its ends doubled."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0.0, 1.0, STEPS, endpoint=False)[:, None]
    path = [
        p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
        for p0, p1, p2, p3 in zip(ends, ends[1:], ends[2:], ends[3:], strict=False)
    ]
    return np.concatenate([*path, points[-1:]])


def _striped(corners: Points, paints: list[str], upright: bool) -> Iterator[Part]:
    """A box of stripes with an edge around."""
    axis = 0 if upright else 1
    cuts = np.linspace(corners[0, axis], corners[1, axis], len(paints) + 1)
    for paint, (low, high) in zip(paints, pairwise(cuts), strict=True):
        assert paint in PAINTS, f"{paint} is no colour of a part"
        stripe = corners.copy()
        stripe[:, axis] = low, high
        yield Part(_box(*stripe), paint, None)
    around = _box(*corners)
    yield Part(np.concatenate([around, around[:2]]), "dark", 0.06)


def _rgb(pen: Pen, paint: str) -> RGB:
    return shade(pen.rgb, SHADES[paint]) if paint in SHADES else PAINTS[paint]
