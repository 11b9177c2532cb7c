"""One function a thing: its outline and the few details by which a person knows it at 32 pixels."""

from collections.abc import Callable

import numpy as np

from pipeline.picturebook.pen import CIRCLE, DARK, Pen, curve, shade
from pipeline.picturebook.words import RGB

LEAF: RGB = (70, 140, 52)
BARK: RGB = (112, 76, 48)
GLASS: RGB = (190, 222, 238)
STEEL: RGB = (120, 122, 128)
CREAM: RGB = (240, 226, 200)
WHITE: RGB = (255, 255, 255)

BEND = np.linspace(-1.15, 1.15, 12)
BACK = np.stack([np.sin(BEND) * 1.02, 1.05 * np.cos(BEND) - 0.62], axis=1)  # the long side of a banana
TAPER = np.maximum(0.12, np.cos(BEND * 1.18)) ** 0.7 * 1.5
DOWN = np.array([[0.0, 1.0]])
SEAM = np.linspace(-0.92, 0.92, 9)
BULGE = np.sqrt(0.86 - SEAM**2)
POINTS = np.stack([np.sin(np.arange(10) * np.pi / 5), -np.cos(np.arange(10) * np.pi / 5)], axis=1)


def banana(pen: Pen) -> None:
    fat = 0.36 + 0.12 * pen.thing.form[2]
    depth = (TAPER * fat)[:, None] * DOWN
    pen.body(np.concatenate([BACK, (BACK - depth)[::-1]]))
    pen.stroke((BACK - 0.45 * depth)[1:-1], 0.05, shade(pen.rgb, 0.72), 170)
    (x0, y0), (x1, y1) = BACK[0], BACK[-1]
    pen.stroke([(x0, y0), (x0 - 0.06, y0 - 0.2)], 0.16, shade(pen.rgb, 0.6))
    pen.oval(x1, y1 - 0.04, 0.09, 0.09, (70, 52, 34))


def apple(pen: Pen) -> None:
    pen.stroke([(0.0, -0.5), (0.12, -0.98)], 0.13, BARK)
    pen.shape(curve((0.1, -0.72), (0.42, -1.0), (0.74, -0.86), (0.44, -0.66)), LEAF)
    low = 0.92 + 0.08 * pen.thing.form[2]
    pen.body(
        curve(
            (0.0, -0.46), (0.42, -0.66), (0.84, -0.36), (0.86, 0.2), (0.5, low - 0.06), (0.14, low - 0.04),
            (0.0, low - 0.12),
            (-0.14, low - 0.04), (-0.5, low - 0.06), (-0.86, 0.2), (-0.84, -0.36), (-0.42, -0.66),
        )
    )  # fmt: skip
    pen.oval(-0.42, -0.16, 0.16, 0.24, WHITE, 120)


def car(pen: Pen) -> None:
    roof = -0.5 - 0.14 * pen.thing.form[2]
    pen.body(
        [
            (-1.0, 0.36),
            (-0.98, 0.0),
            (-0.72, -0.1),
            (-0.46, roof),
            (0.3, roof),
            (0.58, -0.06),
            (0.94, 0.04),
            (1.0, 0.36),
        ]
    )
    pen.shape([(-0.54, -0.08), (-0.38, roof + 0.12), (-0.1, roof + 0.12), (-0.1, -0.08)], GLASS)
    pen.shape([(0.0, -0.08), (0.0, roof + 0.12), (0.24, roof + 0.12), (0.42, -0.08)], GLASS)
    for x in (-0.54, 0.54):
        pen.oval(x, 0.38, 0.27, 0.27, DARK)
        pen.oval(x, 0.38, 0.12, 0.12, (180, 182, 186))
    pen.oval(0.92, 0.14, 0.07, 0.07, (255, 240, 170))


def house(pen: Pen) -> None:
    roof = ((150, 62, 48), (90, 72, 66), (70, 78, 98), (176, 96, 50))[int(pen.thing.form[0] * 4)]
    eaves = -0.16 - 0.12 * pen.thing.form[1]
    if pen.thing.form[2] < 0.6:
        pen.box(0.36, -0.9, 0.56, -0.3, shade(roof, 0.8))
    pen.body([(-0.74, eaves), (0.74, eaves), (0.74, 0.92), (-0.74, 0.92)])
    pen.shape([(-1.0, eaves), (0.0, -0.98), (1.0, eaves)], roof)
    pen.box(-0.16, 0.34, 0.2, 0.92, (98, 64, 42))
    for x in (-0.48, 0.5):
        pen.box(x - 0.17, 0.06, x + 0.17, 0.36, GLASS)
        pen.stroke([(x, 0.06), (x, 0.36)], 0.05, DARK)


def tree(pen: Pen) -> None:
    a, b, c = pen.thing.form
    pen.shape([(-0.13, 0.2), (0.13, 0.2), (0.19, 0.98), (-0.19, 0.98)], BARK)
    if c < 0.3:  # a conifer
        for top, low, half in ((-0.1, 0.62, 0.74), (-0.55, 0.2, 0.58), (-1.0, -0.2, 0.42)):
            pen.body([(0.0, top), (half, low), (-half, low)])
        return
    w = 0.74 + 0.14 * a
    pen.body(
        curve(
            (0.0, -0.98), (0.46, -0.86), (w * 0.86, -0.5), (w, -0.06), (0.56, 0.34), (0.2, 0.28),
            (-0.2, 0.36), (-0.6, 0.3), (-w, -0.1 - 0.1 * b), (-w * 0.84, -0.52), (-0.42, -0.84),
        )
    )  # fmt: skip
    for x, y in ((-0.34, -0.4), (0.3, -0.52), (0.36, 0.0), (-0.3, 0.08)):
        pen.oval(x, y, 0.17, 0.13, shade(pen.rgb, 0.72), 150)


def fish(pen: Pen) -> None:
    deep = 0.42 + 0.16 * pen.thing.form[2]
    fin = shade(pen.rgb, 0.75)
    pen.shape([(-0.36, 0.0), (-1.0, -0.5), (-0.84, 0.0), (-1.0, 0.5)], fin)
    pen.shape([(-0.2, -deep * 0.7), (0.06, -deep - 0.28), (0.36, -deep * 0.8)], fin)
    pen.shape([(-0.1, deep * 0.7), (-0.06, deep + 0.22), (0.24, deep * 0.8)], fin)
    pen.body(
        curve(
            (-0.56, 0.0), (-0.2, -deep * 0.8), (0.24, -deep), (0.7, -deep * 0.62),
            (0.98, 0.0), (0.7, deep * 0.62), (0.24, deep), (-0.2, deep * 0.8),
        )
    )  # fmt: skip
    pen.stroke([(0.4, -deep * 0.7), (0.3, 0.0), (0.4, deep * 0.7)], 0.06, fin)
    pen.oval(0.66, -0.12, 0.13, 0.13, WHITE)
    pen.oval(0.68, -0.12, 0.07, 0.07, DARK)


def cup(pen: Pen) -> None:
    low = 0.38 + 0.16 * pen.thing.form[2]
    ring = CIRCLE * (0.32, 0.36) + (0.62, 0.1)
    pen.stroke(np.concatenate([ring, ring[:2]]), 0.15, shade(pen.rgb, 0.7))
    pen.body([(-0.72, -0.6), (0.6, -0.6), (0.6 - 0.12, 0.5), (low, 0.86), (-low - 0.1, 0.86), (-0.6, 0.5)])
    pen.oval(-0.06, -0.6, 0.66, 0.18, shade(pen.rgb, 0.6))
    pen.oval(-0.06, -0.57, 0.54, 0.12, (92, 58, 38))
    pen.box(-0.52, -0.3, -0.4, 0.5, WHITE, 90)


def ball(pen: Pen) -> None:
    pen.body(CIRCLE * 0.94)
    a = pen.thing.form[0]
    line = WHITE if sum(pen.rgb) < 560 else (60, 60, 70)
    if pen.thing.texture == "plain":
        for side in (-0.55 - 0.2 * a, 0.0, 0.55 + 0.2 * a):
            pen.stroke(np.stack([BULGE * side, SEAM], axis=1), 0.1, line, 220)
        pen.stroke([(-0.92, 0.0), (0.92, 0.0)], 0.1, line, 220)
    pen.oval(-0.34, -0.38, 0.2, 0.16, WHITE, 130)


def star(pen: Pen) -> None:
    inner = 0.40 + 0.08 * pen.thing.form[2]
    outline = POINTS.copy()
    outline[1::2] *= inner
    pen.body(outline)
    pen.shape(outline * 0.5, shade(pen.rgb, 1.3), 120)


def umbrella(pen: Pen) -> None:
    pen.stroke([(0.0, -1.0), (0.0, 0.72)], 0.11, STEEL)
    pen.stroke([(0.0, 0.7), (0.06, 0.92), (0.24, 0.94), (0.3, 0.72)], 0.11, BARK)
    top = -0.82 - 0.08 * pen.thing.form[2]
    dome = [(-1.0, 0.06), (-0.92, -0.3), (-0.6, -0.66), (0.0, top), (0.6, -0.66), (0.92, -0.3), (1.0, 0.06)]
    hem = [(0.82, -0.06), (0.66, -0.06), (0.5, 0.06), (0.34, -0.06), (0.0, -0.08), (-0.34, -0.06), (-0.5, 0.06),
           (-0.66, -0.06), (-0.82, -0.06)]  # fmt: skip
    pen.body(dome + hem)
    for x in (-0.5, 0.0, 0.5):
        pen.stroke([(0.0, top), (x * 0.85, -0.4), (x, 0.02)], 0.05, shade(pen.rgb, 0.6), 200)


def boat(pen: Pen) -> None:
    tall = -0.88 - 0.1 * pen.thing.form[2]
    pen.stroke([(0.0, 0.4), (0.0, tall)], 0.09, BARK)
    cloth = (WHITE, CREAM, (214, 70, 60), (250, 220, 120))[int(pen.thing.form[1] * 4)]
    pen.shape([(0.08, tall + 0.04), (0.78, 0.22), (0.08, 0.22)], cloth)
    pen.shape([(-0.08, tall + 0.22), (-0.08, 0.22), (-0.58, 0.22)], shade(cloth, 0.85))
    pen.body([(-1.0, 0.34), (1.0, 0.34), (0.66, 0.88), (-0.62, 0.88)])


def flower(pen: Pen) -> None:
    pen.stroke([(0.0, -0.2), (0.06, 0.4), (0.0, 1.0)], 0.11, LEAF)
    pen.shape(curve((0.02, 0.74), (0.3, 0.36), (0.62, 0.34), (0.4, 0.66)), LEAF)
    pen.shape(curve((0.0, 0.86), (-0.28, 0.52), (-0.56, 0.5), (-0.36, 0.8)), LEAF)
    petals = 5 + int(pen.thing.form[2] * 3)
    for turn in np.arange(petals) * 2 * np.pi / petals:
        x, y = float(np.sin(turn)) * 0.38, float(-np.cos(turn)) * 0.38 - 0.36
        pen.oval(x, y, 0.27, 0.27, shade(pen.rgb, 0.7))
        pen.oval(x, y, 0.23, 0.23, pen.rgb)
    centre: RGB = (246, 204, 60) if pen.thing.colour not in ("yellow", "orange") else (110, 66, 36)
    pen.oval(0.0, -0.36, 0.22, 0.22, centre)


def key(pen: Pen) -> None:
    dark = shade(pen.rgb, 0.6)
    ring = CIRCLE * (0.34, 0.36) + (-0.62, 0.0)
    for rgb, extra in ((dark, 0.08), (pen.rgb, 0.0)):
        pen.stroke(np.concatenate([ring, ring[:2]]), 0.21 + extra, rgb)
        pen.stroke([(-0.26, 0.0), (0.98, 0.0)], 0.20 + extra, rgb)
        for x, down in ((0.58, 0.36), (0.86, 0.28 + 0.16 * pen.thing.form[2])):
            pen.stroke([(x, 0.0), (x, down)], 0.16 + extra, rgb)


def mushroom(pen: Pen) -> None:
    foot = 0.24 + 0.12 * pen.thing.form[2]
    pen.shape(
        curve((-0.2, 0.0), (0.2, 0.0), (foot, 0.72), (foot * 0.8, 0.94), (-foot * 0.8, 0.94), (-foot, 0.72)), CREAM
    )
    pen.stroke([(-0.2, 0.3), (0.0, 0.36), (0.2, 0.3)], 0.07, shade(CREAM, 0.75))
    cap = [(-0.94, 0.12), (-0.88, -0.3), (-0.52, -0.78), (0.0, -0.94), (0.52, -0.78), (0.88, -0.3), (0.94, 0.12),
           (0.4, 0.2), (-0.4, 0.2)]  # fmt: skip
    if pen.thing.texture == "spotted":
        _spotted_cap(pen, cap)
    else:
        pen.body(curve(*cap))


def _spotted_cap(pen: Pen, cap: list[tuple[float, float]]) -> None:
    """A fly agaric's spots are white and few; the general texture's are dark and many."""
    pen.shape(curve(*cap), shade(pen.rgb, 0.6))
    pen.shape(curve(*cap) * (0.94, 0.94) + (0.0, -0.02), pen.rgb)
    spot = CREAM if sum(pen.rgb) < 560 else (168, 120, 84)
    for x, y, size in ((-0.46, -0.2, 0.15), (0.08, -0.58, 0.16), (0.5, -0.24, 0.17), (0.02, -0.06, 0.13)):
        pen.oval(x, y, size, size * 0.85, spot)


OUTLINES: dict[str, Callable[[Pen], None]] = {
    f.__name__: f
    for f in (banana, apple, car, house, tree, fish, cup, ball, star, umbrella, boat, flower, key, mushroom)
}
