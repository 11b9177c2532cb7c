"""What is in image number `index`: a pure function of (seed, index), before a single pixel is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from infra.seeding import rng
from pipeline.picturebook import catalogue
from pipeline.picturebook.catalogue import USUAL
from pipeline.picturebook.words import BACKGROUNDS, COLOURS, INVERSE, RGB, TEMPLATES, THINGS, Thing

__all__ = ["TEMPLATES", "THINGS", "Background", "Scene", "Thing", "labelled", "scene"]

T = TypeVar("T")

_KINDS_OF_BACKGROUND = ("plain", "plain", "gradient", *BACKGROUNDS)

SINGLE_SHARE = 0.75
RADII: dict[str, tuple[float, float]] = {"small": (0.29, 0.33), "medium": (0.34, 0.39), "large": (0.41, 0.47)}
PAIR_RADII: dict[str, tuple[float, float]] = {"small": (0.20, 0.21), "medium": (0.23, 0.25), "large": (0.27, 0.29)}


@dataclass(frozen=True)
class Background:
    kind: str
    colour: str  # the word for `rgb`; only a plain background's is ever said
    rgb: RGB
    second: RGB


@dataclass(frozen=True)
class Scene:
    """One or two things before a background. `relation` is that of the first thing to the second, if there is one."""

    things: tuple[Thing, ...]
    relation: str | None
    background: Background


def scene(seed: int, index: int, things: int = USUAL) -> Scene:
    """The scene of row `index` (>= 0) of the book called `seed`, which has so many things. O(1): no row depends on
    another."""
    _check(index)
    names = list(catalogue.names(things))
    r = rng(seed, *labels(things), "train", index)
    first = names.pop(_below(r, len(names)))
    if r.random() < SINGLE_SHARE:
        return _single(r, first)
    return _pair(r, first, names[_below(r, len(names))])


def labelled(seed: int, index: int, things: int = USUAL) -> tuple[int, Scene]:
    """Row `index` of the labelled test stream: (label, a scene with the single thing of that label).

    Every `things` successive rows hold each class once. The stream draws from random numbers of its own, so that
    no test scene is a training scene, whatever the seeds.
    """
    _check(index)
    label = index % things
    return label, _single(rng(seed, *labels(things), "test", index), catalogue.names(things)[label])


def labels(things: int) -> tuple[str | int, ...]:
    """What all random choices of a book are labelled with: a book of another size shares no image with it."""
    return ("picturebook",) if things == USUAL else ("picturebook", things)


def pick(r: np.random.Generator, options: Sequence[T]) -> T:
    return options[_below(r, len(options))]


def _check(index: int) -> None:
    if index < 0:
        raise ValueError(f"a picture's index is 0 or more, not {index}")


def _below(r: np.random.Generator, n: int) -> int:
    return int(r.random() * n)  # r.integers and r.choice cost 5 to 20 times as much for one number


def _between(r: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * r.random()


def _single(r: np.random.Generator, name: str) -> Scene:
    size = pick(r, ("small", "medium", "medium", "large"))
    radius = _between(r, *RADII[size])
    room = 0.5 - radius
    thing = _thing(r, name, size, radius, 0.5 + _between(r, -room, room), 0.5 + _between(r, -room, room))
    return Scene((thing,), None, _background(r))


def _pair(r: np.random.Generator, first: str, second: str) -> Scene:
    """Two things placed as their relation says; a thing in front overlaps the other a little, never hides it."""
    relation = pick(r, tuple(INVERSE))
    sizes = pick(r, tuple(PAIR_RADII)), pick(r, tuple(PAIR_RADII))
    a, b = (_between(r, *PAIR_RADII[size]) for size in sizes)
    along, across = (a + b) * _between(r, 0.92, 1.0), _between(r, -0.12, 0.12)
    if relation == "beside":
        along = along if r.random() < 0.5 else -along
    dx, dy = {
        "beside": (along, across),
        "right": (along, across),
        "left": (-along, across),
        "above": (across, -along),
        "below": (across, along),
        "front": (along * 0.62, along * 0.5),
        "behind": (-along * 0.62, -along * 0.5),
    }[relation]
    if relation in ("front", "behind") and r.random() < 0.5:
        dx = -dx
    (ax, bx), (ay, by) = _fit(r, dx, a, b), _fit(r, dy, a, b)
    things = _thing(r, first, sizes[0], a, ax, ay), _thing(r, second, sizes[1], b, bx, by)
    return Scene(things, relation, _background(r))


def _fit(r: np.random.Generator, offset: float, a: float, b: float) -> tuple[float, float]:
    """Centres, along one axis, of two things `offset` apart (a minus b), both inside the image where they fit."""
    low = min(offset - a, -b)
    high = max(offset + a, b)
    slack = 1.0 - (high - low)
    shift = slack / 2 if slack <= 0 else _between(r, 0.0, slack)
    return offset - low + shift, -low + shift


def _thing(r: np.random.Generator, name: str, size: str, radius: float, x: float, y: float) -> Thing:
    kind = catalogue.kind(name)
    colour = pick(r, kind.colours) if kind.colours else ""
    return Thing(
        name=name,
        colour=colour,
        rgb=_jitter(r, COLOURS[colour or "grey"]),
        texture=pick(r, kind.textures),
        size=size,
        x=x,
        y=y,
        radius=radius,
        aspect=_between(r, 0.87, 1.15),
        angle=_between(r, -kind.lean_degrees, kind.lean_degrees),
        flipped=kind.flips and r.random() < 0.5,
        form=(r.random(), r.random(), r.random()),
    )


def _background(r: np.random.Generator) -> Background:
    colour = pick(r, ("white", "white", "grey", "black", "red", "blue", "green", "yellow", "orange", "pink", "brown"))
    second = pick(r, tuple(COLOURS))
    rgb, other = _jitter(r, COLOURS[colour]), _jitter(r, COLOURS[second])
    return Background(pick(r, _KINDS_OF_BACKGROUND), colour, rgb if colour == "black" else _paler(rgb), _paler(other))


def _paler(rgb: RGB) -> RGB:
    """Walls are painted paler than things: a red car stays visible before a red one."""
    return (90 + rgb[0] * 5 // 8, 90 + rgb[1] * 5 // 8, 90 + rgb[2] * 5 // 8)


def _jitter(r: np.random.Generator, rgb: RGB) -> RGB:
    """A colour that still deserves its name: brightness may change more than hue."""
    light = _between(r, -20, 20)
    red, green, blue = (min(255, max(0, int(c + light + _between(r, -11, 11)))) for c in rgb)
    return red, green, blue
