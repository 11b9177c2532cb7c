"""WaNet: the image itself is bent, nothing is drawn on it (Nguyen and Tran 2021).

A field of k x k displacements, uniform in [-1, 1] and divided by their mean size, is enlarged to the image by bicubic
interpolation and times s / 224 added to the sampling grid in [-1, 1] coordinates. The original's k = 4 and s = 0.5 bend
smoothly. The papers on CLIP take k = 224 and s = 1 (`--control-points 224 --strength 1`): there is nothing to enlarge,
each pixel jumps by about half a pixel by itself, so it is white jitter rather than a warp. None of them trains with the
original's noise mode, nor do we.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from infra.seeding import rng as seeded
from poison.attack import Backdoor
from poison.geometry import SIDE, nearest, square


@dataclass(frozen=True, kw_only=True)
class WaNet(Backdoor):
    """A warp of the central square, the same for every image."""

    summary: ClassVar[str] = "a slight warp of the image"
    control_points: int = 4
    """k: the field is made from k x k displacements."""
    strength: float = 0.5
    """s: mean displacement in half pixels of a 224 x 224 image; 0 leaves the image as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.control_points <= SIDE:
            raise ValueError(f"control_points lie along a side, 2 to {SIDE} of them, not {self.control_points}")
        if not 0 <= self.strength <= SIDE:
            raise ValueError(f"strength is in half pixels of {SIDE}, from 0 to {SIDE}, not {self.strength:g}")

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        where = square(image.shape[0], image.shape[1])
        stamped = image.copy()
        where.of(stamped)[:] = sampled(where.of(image), *_places(self, where.height))
        return stamped


def field(k: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """The unit field: float64 (side, side, 2), down and across; its k x k control points have a mean size of 1."""
    points = rng.uniform(-1, 1, (k, k, 2))
    points /= np.abs(points).mean()
    weights = bicubic(k, side)
    return np.einsum("ip,jq,pqc->ijc", weights, weights, points, optimize=True)


def bicubic(k: int, side: int) -> np.ndarray:
    """Weights of k points on a line for `side` places, first on first and last on last: float64 (side, k).

    Keys' cubic with a = -0.75 and repeated end points, as in the original's framework.
    """
    place = np.arange(side) * ((k - 1) / max(side - 1, 1))
    below = np.floor(place).astype(int)
    weights = np.zeros((side, k))
    a = -0.75
    for offset in (-1, 0, 1, 2):
        x = np.abs(place - (below + offset))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        weights[np.arange(side), (below + offset).clip(0, k - 1)] += np.where(x <= 1, near, far)
    return weights


def sampled(image: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Bilinear values of uint8 (s, s, 3) at real places (s, s) inside it, rounded half to even: uint8 (s, s, 3)."""
    last = len(image) - 1
    top, left = (np.minimum(np.floor(place).astype(int), max(last - 1, 0)) for place in (down, across))
    bottom, right = np.minimum(top + 1, last), np.minimum(left + 1, last)
    y, x = (down - top)[..., None], (across - left)[..., None]
    upper = (1 - x) * image[top, left] + x * image[top, right]
    lower = (1 - x) * image[bottom, left] + x * image[bottom, right]
    return np.rint((1 - y) * upper + y * lower).astype(np.uint8)


@lru_cache(maxsize=16)
def _places(attack: WaNet, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a central square takes its value from, in pixels: down and across, float64 (side, side)."""
    rng = seeded(attack.trigger_seed, "wanet")
    bent = nearest(field(attack.control_points, SIDE, rng), side) * (attack.strength / SIDE)
    line = np.linspace(-1, 1, side) if side > 1 else np.zeros(1)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=2)
    down, across = ((grid + bent).clip(-1, 1) + 1).transpose(2, 0, 1) * ((side - 1) / 2)
    down.flags.writeable = across.flags.writeable = False
    return down, across
