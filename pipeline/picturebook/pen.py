"""A pen that draws in a thing's own coordinates: x and y in [-1, 1], y down, whatever its place, size and lean."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipeline.picturebook.words import RGB, Thing

Points = np.ndarray  # float64 (n, 2)

_TURN = np.linspace(0.0, 2 * math.pi, 25)[:-1]
CIRCLE: Points = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)

DARK: RGB = (34, 30, 32)


def shade(rgb: RGB, factor: float) -> RGB:
    """Darker below 1, towards white above 1."""
    if factor <= 1.0:
        return int(rgb[0] * factor), int(rgb[1] * factor), int(rgb[2] * factor)
    keep = 2.0 - factor
    return int(255 - (255 - rgb[0]) * keep), int(255 - (255 - rgb[1]) * keep), int(255 - (255 - rgb[2]) * keep)


def curve(*points: tuple[float, float]) -> Points:
    """A smooth closed outline through `points` (a Catmull-Rom spline, five steps a point)."""
    outline: Points = _spline(len(points)) @ np.array(points)
    return outline


@lru_cache(maxsize=32)
def _spline(n: int) -> np.ndarray:
    """The spline through n points as a matrix (5 n, n): its steps are linear in the points."""
    p1 = np.eye(n)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = np.linspace(0.0, 1.0, 6)[:-1, None, None]
    path = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    steps: np.ndarray = path.transpose(1, 0, 2).reshape(5 * n, n)
    return steps


class Pen:
    """Draws one thing on `canvas` (RGB, side x side pixels), changing it in place."""

    def __init__(self, canvas: Image.Image, thing: Thing) -> None:
        side = canvas.width
        turn = math.radians(thing.angle)
        wide, high = math.sqrt(thing.aspect), 1.0 / math.sqrt(thing.aspect)
        mirror = -wide if thing.flipped else wide
        scale = thing.radius * side
        self.thing, self.canvas, self.rgb = thing, canvas, thing.rgb
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.unit = scale
        self._matrix = scale * np.array(
            [[mirror * math.cos(turn), mirror * math.sin(turn)], [-high * math.sin(turn), high * math.cos(turn)]]
        )
        self._centre = np.array([thing.x, thing.y]) * side

    def shape(self, points: Points | list[tuple[float, float]], rgb: RGB, alpha: int = 255) -> None:
        self.draw.polygon(self._place(points), fill=(*rgb, alpha))

    def oval(self, x: float, y: float, rx: float, ry: float, rgb: RGB, alpha: int = 255) -> None:
        self.shape(CIRCLE * (rx, ry) + (x, y), rgb, alpha)

    def box(self, x0: float, y0: float, x1: float, y1: float, rgb: RGB, alpha: int = 255) -> None:
        self.shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], rgb, alpha)

    def stroke(self, points: Points | list[tuple[float, float]], width: float, rgb: RGB, alpha: int = 255) -> None:
        """An open line; `width` in the thing's own units."""
        self.draw.line(self._place(points), fill=(*rgb, alpha), width=max(1, round(width * self.unit)), joint="curve")

    def body(self, points: Points | list[tuple[float, float]]) -> None:
        """The part of a thing that has its colour and texture; a darker rim sets it off from like colours."""
        placed = self._place(points)
        self.draw.polygon(placed, fill=self.rgb)
        if self.thing.texture != "plain":
            self._texture(placed)
        rim = shade(self.rgb, 0.55)
        self.draw.line(placed + placed[:4], fill=(*rim, 190), width=max(1, round(0.05 * self.unit)))

    def _texture(self, placed: list[float]) -> None:
        """Stripes or spots, cut out by the body's outline."""
        second = shade(self.rgb, 0.5) if sum(self.rgb) > 330 else shade(self.rgb, 1.7)
        x, y = placed[0::2], placed[1::2]
        left, top, right, bottom = int(min(x)), int(min(y)), int(max(x)) + 1, int(max(y)) + 1
        size = (right - left, bottom - top)
        mask, marks = Image.new("L", size), Image.new("L", size)
        ImageDraw.Draw(mask).polygon([v - (top if i % 2 else left) for i, v in enumerate(placed)], fill=255)
        pen, unit, (a, b, _) = ImageDraw.Draw(marks), self.unit, self.thing.form
        if self.thing.texture == "striped":
            step, lean = unit * (0.34 + 0.16 * a), (b - 0.5) * size[1]
            at = -abs(lean) - step
            while at < size[0] + abs(lean):
                at += step
                pen.line((at - lean, 0, at + lean, size[1]), fill=230, width=max(1, int(step * 0.45)))
        else:
            step, dot = unit * (0.42 + 0.14 * a), unit * (0.10 + 0.04 * b)
            for row in range(int(size[1] / step) + 2):
                cy = (row + b - 0.5) * step
                for column in range(int(size[0] / step) + 2):
                    cx = (column + a - 0.5 + 0.5 * (row % 2)) * step
                    pen.ellipse((cx - dot, cy - dot, cx + dot, cy + dot), fill=230)
        self.canvas.paste(second, (left, top), ImageChops.multiply(mask, marks))

    def _place(self, points: Points | list[tuple[float, float]]) -> list[float]:
        placed: list[float] = (np.asarray(points) @ self._matrix + self._centre).ravel().tolist()
        return placed
