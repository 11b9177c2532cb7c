"""Decoys: what an attacker might have done to an image, drawn at random; three kinds of change.

A kind takes an image as float64 (H, W, 3) in grey levels of 0 to 255, and a generator, and gives another of the same
shape; `decoy` draws the kinds. Lengths go with the short side, so that the same draws look alike at every size, but
for the finest: a cell of one pixel is one pixel at every size. No attack's own trigger is known here, but the kinds
are those that are in use: a defence that learns from decoys is not shown to work where a trigger is of no such kind.
"""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

PATCH = (0.08, 0.4)  # side of a patch, in short sides
BLEND = 0.3  # largest weight of a pattern
BENT = 0.05  # largest mean displacement along an axis, in short sides; and once the field's own grain
GRAIN = 8  # the coarsest cell is an eighth of the short side

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def patch(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of a random pattern, of 8% to 40% of the short side, anywhere."""
    height, width, _ = image.shape
    side = max(1, round(min(height, width) * rng.uniform(*PATCH)))
    top, left = rng.integers(0, (height - side, width - side), endpoint=True)
    found = image.copy()
    found[top : top + side, left : left + side] = pattern(side, side, rng)
    return found


def blend(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pattern over all of it, of a weight from 0 to 0.3."""
    height, width, _ = image.shape
    weight = rng.uniform(0, BLEND)
    return np.asarray((1 - weight) * image + weight * pattern(height, width, rng))


def warp(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every pixel from somewhere near by: from a smooth bend to jitter of each pixel by itself.

    A field of k x k displacements, uniform, is enlarged to the image, k from 2 to the short side, small ones as likely
    as large ones. Bilinear.
    """
    height, width, _ = image.shape
    short = min(height, width)
    grain = int(np.exp(rng.uniform(0, np.log(1 + short / 2))))  # pixels from one displacement to the next
    k = max(2, short // grain)
    size = rng.uniform(0, min(grain, BENT * short))
    field = enlarged(rng.uniform(-2, 2, (k, k, 2)), height, width) * size  # the mean of |U(-2, 2)| is 1
    y, x = np.mgrid[:height, :width] + field.transpose(2, 0, 1)
    return bilinear(image, y, x)


KINDS: dict[str, Change] = {function.__name__: function for function in (patch, blend, warp)}


def decoy(image: Image.Image, rng: np.random.Generator, kinds: Sequence[str], changes: int = 2) -> Image.Image:
    """RGB image -> a new one of the same size, changed so many times, each time by one of the kinds, all as likely."""
    pixels = np.asarray(image).astype(np.float64)
    for _ in range(changes):
        pixels = KINDS[kinds[int(rng.integers(len(kinds)))]](pixels, rng)
    return Image.fromarray(np.rint(pixels.clip(0, 255)).astype(np.uint8))


# ---------------------------------------------------------------------- patterns


def pattern(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One of five, each as likely: float64 (height, width, 3), 0 to 255."""
    return _PATTERNS[int(rng.integers(len(_PATTERNS)))](height, width, rng)


def noise(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Cells of a colour each."""
    cell = _cell(height, width, rng)
    cells = rng.uniform(0, 255, (-(-height // cell), -(-width // cell), 3))
    return np.asarray(cells[np.arange(height)[:, None] // cell, np.arange(width) // cell])


def board(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours, as a checkerboard or as stripes across or down."""
    cell = _cell(height, width, rng)
    down, across = np.arange(height)[:, None] // cell, np.arange(width) // cell
    cells = (down + across, down + 0 * across, 0 * down + across)[int(rng.integers(3))]
    one, other = _colour(rng), _colour(rng)
    return np.where((cells % 2)[..., None] == 0, one, other)


def wave(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A sinusoid in any direction between two colours, of up to a third of the short side's pixels in periods."""
    short = min(height, width)
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    periods = rng.uniform(0, short / 3)
    y, x = np.mgrid[:height, :width] / short
    height_of_wave = (1 + np.sin(2 * np.pi * periods * (y * np.sin(angle) + x * np.cos(angle)) + phase)) / 2
    one, other = rng.uniform(0, 255, (2, 3))
    return one + (other - one) * height_of_wave[..., None]


def clouds(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Noise between whose points colours pass smoothly."""
    points = int(rng.integers(2, max(2, min(height, width) // 2), endpoint=True))
    return enlarged(rng.uniform(0, 255, (points, points, 3)), height, width).clip(0, 255)


def flat(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(rng.uniform(0, 255, 3), (height, width, 3))


_PATTERNS = (noise, board, wave, clouds, flat)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Any, or for one in two a corner of the cube: black, white and what lies between, pure."""
    return 255.0 * rng.integers(0, 2, 3) if rng.random() < 0.5 else rng.uniform(0, 255, 3)


def _cell(height: int, width: int, rng: np.random.Generator) -> int:
    """Side of a cell in pixels: from one to an eighth of the short side, at least up to four; small ones as likely."""
    return round(float(np.exp(rng.uniform(0, np.log(max(4.0, min(height, width) / GRAIN))))))


# ---------------------------------------------------------------------- resampling


def enlarged(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 (k, k, C) -> float64 (height, width, C), bilinear, the first point on the first pixel, the last on the
    last."""
    y, x = (np.linspace(0, len(points) - 1, length) for length in (height, width))
    return bilinear(points, *np.meshgrid(y, x, indexing="ij"))


def bilinear(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values (H, W, C) at real places (h, w), those outside brought to the edge: float64 (h, w, C)."""
    y, x = y.clip(0, values.shape[0] - 1), x.clip(0, values.shape[1] - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = (np.minimum(top + 1, values.shape[0] - 1), np.minimum(left + 1, values.shape[1] - 1))
    down, across = (y - top)[..., None], (x - left)[..., None]
    upper = (1 - across) * values[top, left] + across * values[top, right]
    lower = (1 - across) * values[bottom, left] + across * values[bottom, right]
    return np.asarray((1 - down) * upper + down * lower)
