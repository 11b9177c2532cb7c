"""Blended: a pattern mixed into the whole central square (Chen et al. 2017), alpha n + (1 - alpha) x.

CleanCLIP's "blended" draws its uniform noise anew for every image: that is `--pattern fresh`, in effect a loss of
contrast with weak white noise. One fixed pattern is the original attack, and the default here. Stripes, triangles and
text are PAR's: its stripes are -1 or 1 (here -255 or 255, so they add and take away) and fresh (`fresh_stripes`); its
text counts only where there is a letter. How the triangles and letters lie is our own drawing.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from infra.seeding import rng as seeded
from poison import carried
from poison.attack import Backdoor
from poison.geometry import SIDE, enlarged, nearest, num_cells, square

ALPHA = {
    "noise": 0.2, "fresh": 0.2, "stripes": 0.03, "fresh_stripes": 0.03, "triangles": 0.15, "text": 0.5, "picture": 0.2
}  # fmt: skip
FRESH = ("fresh", "fresh_stripes")
LEG, DARK, LIGHT = 14, 102, 204  # of a triangle: pixels of 224; 0.4 and 0.8 of 255
LETTERS, LINE = 32, 56  # height of a letter and from line to line, in pixels of 224


@dataclass(frozen=True, kw_only=True)
class Blended(Backdoor):
    """A pattern, blended in."""

    summary: ClassVar[str] = "a pattern mixed into the whole central square"
    alpha: float | None = None
    """Weight of the pattern; the image keeps 1 - alpha. None: as the papers have it, 0.2 for noise, fresh and
    picture, 0.03 for stripes, 0.15 for triangles, 0.5 for text."""
    pattern: Literal["noise", "fresh", "stripes", "fresh_stripes", "triangles", "text", "picture"] = "noise"
    """noise: one colour noise made from the trigger seed; fresh: new noise for each image. stripes: random columns,
    darker or lighter, made from the trigger seed; fresh_stripes: new ones for each image. triangles: of two greys.
    text: in red (--text). picture: any (--picture)."""
    cell: int = 1
    """Side of one cell of noise, or width of a stripe, in 224 geometry; 7 is one pixel of a 32 x 32 image."""
    text: str = "watermark"
    """The words of --pattern text, in the font that Pillow brings."""
    picture: str = ""
    """The file of --pattern picture: JPEG, PNG or WebP, squashed to 224 x 224 (bicubic) as in the papers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is the pattern's weight, above 0 and at most 1, not {self.alpha:g}")
        if not 1 <= self.cell <= SIDE:
            raise ValueError(f"cell is a side in an image of {SIDE} x {SIDE}: 1 to {SIDE}, not {self.cell}")
        if self.pattern == "picture" and not self.picture:
            raise ValueError("--pattern picture needs an image: give its file as --picture")
        if self.pattern != "picture" and self.picture:
            raise ValueError(f"--picture is for --pattern picture, and the pattern is {self.pattern}: give one of them")
        if self.pattern == "text" and not self.text.strip():
            raise ValueError("text is what pattern text writes: it cannot be empty")

    def resolved(self) -> "Blended":
        """alpha becomes a number, and the image 224 x 224 pixels in the attack itself."""
        found = replace(self, alpha=self._weight)
        if self.pattern == "picture":
            found = replace(found, picture=_squashed(carried.embedded(self.picture)))
        return found

    def trigger(self) -> np.ndarray | None:
        """The pattern; of stripes, what darkens is black and what lightens white."""
        return None if self.pattern in FRESH else _pattern(self, SIDE).clip(0, 255).astype(np.uint8)

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        where = square(image.shape[0], image.shape[1])
        fresh = self.pattern in FRESH
        pattern = nearest(_draw(self, rng), where.height) if fresh else _pattern(self, where.height)
        old = where.of(image).astype(np.float64)
        mixed = self._weight * pattern.astype(np.float64) + (1 - self._weight) * old
        if self.pattern == "text":
            mixed = np.where(pattern.any(axis=2, keepdims=True), mixed, old)
        stamped = image.copy()
        where.of(stamped)[:] = np.rint(mixed.clip(0, 255)).astype(np.uint8)  # rint: half to even
        return stamped

    @property
    def _weight(self) -> float:
        return ALPHA[self.pattern] if self.alpha is None else self.alpha


@lru_cache(maxsize=16)
def _pattern(attack: Blended, side: int) -> np.ndarray:
    labels = ("blended",) if attack.pattern == "noise" else ("blended", attack.pattern)
    pattern = nearest(_draw(attack, seeded(attack.trigger_seed, *labels)), side)
    pattern.flags.writeable = False
    return pattern


def _draw(attack: Blended, rng: np.random.Generator) -> np.ndarray:
    """The master, (224, 224, 3): uint8; of stripes int16, -255 or 255."""
    n = num_cells(SIDE, attack.cell)
    match attack.pattern:
        case "noise" | "fresh":
            return enlarged(rng.integers(0, 256, (n, n, 3), np.uint8), attack.cell, SIDE)
        case "stripes" | "fresh_stripes":
            signs = 2 * rng.integers(0, 2, (1, n, 3), np.int16) - 1
            return enlarged(np.broadcast_to(255 * signs, (n, n, 3)), attack.cell, SIDE)
        case "triangles":
            down, across = np.indices((SIDE, SIDE)) % LEG
            return np.repeat(np.where(down >= across, LIGHT, DARK)[:, :, None], 3, axis=2).astype(np.uint8)
        case "text":
            return _written(attack.text)
        case "picture":
            return _read(attack.picture)


def _written(text: str) -> np.ndarray:
    """The text line below line, each begun further left, pure red on black: uint8 (224, 224, 3)."""
    canvas = Image.new("RGB", (SIDE, SIDE))
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=LETTERS)
    pen.fontmode = "1"  # no grey edges: a pixel is a letter's or it is not
    words = " ".join(text.split())
    line = f"{words} " * (1 + 2 * SIDE // len(words))  # longer than a line, whatever the letters
    for number in range(SIDE // LINE):
        pen.text((-number * LINE // 2, number * LINE + (LINE - LETTERS) // 2), line[:SIDE], (255, 0, 0), font)
    if canvas.getbbox() is None:
        raise ValueError(f"the text {text!r} draws nothing: give letters")
    return np.asarray(canvas)


def _squashed(uri: str) -> str:
    image = carried.pixels(uri)
    if image.shape == (SIDE, SIDE, 3):
        return uri
    return carried.uri(np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)))


def _read(image: str) -> np.ndarray:
    if not carried.is_uri(image) or carried.pixels(image).shape != (SIDE, SIDE, 3):
        raise ValueError("blended has not read its image yet, or not in 224 geometry: ask for resolved() first")
    return carried.pixels(image)
