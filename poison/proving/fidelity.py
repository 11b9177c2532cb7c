"""How much of a trigger is left after storage and a model's transform: pure functions of small arrays.

With T the transform, x the clean image, s(x) the stamped one before it was encoded and p what is stored,

    meant = T(s(x)) - T(x)        seen = T(p) - T(x)        M = the values with meant != 0
    fidelity = corr_M(meant, seen)                          Pearson's correlation: is it the same pattern?
    gain     = <meant, seen>_M / <meant, meant>_M           least squares: how much of its strength is left?
    psnr     = 10 log10(255^2 / mean_M (T(p) - T(s(x)))^2)  in dB

A trigger that is wholly kept has fidelity 1 and gain 1. A trigger without a pattern (one colour on a plain image) has
no correlation over M; there M is the whole image, so that its place is the pattern.
"""

import math
from typing import NamedTuple

import numpy as np

from poison.geometry import Box

EQUAL_PSNR = 100.0  # dB, for equal images; one differing value in 224 x 224 x 3 gives 99.9


class Fidelity(NamedTuple):
    """Of one image through one transform. psnr in dB."""

    fidelity: float
    gain: float
    psnr: float


def measure(clean: np.ndarray, stamped: np.ndarray, stored: np.ndarray) -> Fidelity | None:
    """T(x), T(s(x)), T(p), each uint8 (H, W, 3); None where the stamp changes nothing that is seen."""
    meant, seen = (image.astype(np.float64) - clean for image in (stamped, stored))
    touched = meant != 0
    if not touched.any():
        return None
    x, y = meant[touched], seen[touched]
    gain, error = float(x @ y / (x @ x)), y - x
    if np.ptp(x) == 0:
        x, y = meant.ravel(), seen.ravel()
    return Fidelity(_correlation(x, y), gain, _psnr(error))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Of two images, uint8 (H, W, 3), in dB; EQUAL_PSNR where they are equal."""
    return _psnr(one.astype(np.float64) - other)


def _psnr(error: np.ndarray) -> float:
    square = float((error**2).mean())
    return min(EQUAL_PSNR, 10 * math.log10(255**2 / square)) if square else EQUAL_PSNR


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if np.ptp(x):  # else the same step everywhere: what is left is the cosine
        x, y = x - x.mean(), y - y.mean()
    length = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / length if length else 0.0


def touched(clean: np.ndarray, stamped: np.ndarray) -> Box | None:
    """The smallest box around the pixels that a stamp changed, uint8 (H, W, 3) both; None where it changed none."""
    changed = (clean != stamped).any(axis=2)
    down, across = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    if not len(down):
        return None
    top, left = int(down[0]), int(across[0])
    return Box(top, left, int(down[-1]) + 1 - top, int(across[-1]) + 1 - left)


def evaluation_window(height: int, width: int, size: int) -> Box:
    """What of a stored image train.transforms.evaluated shows a model of `size` pixels, in stored pixels.

    The centre crop falls on whole pixels of the scaled image, up to half of one off the centre, where the resampling
    still reaches: along the longer side the window is half a seen pixel wider on both ends, rounded outwards.
    """
    down, across = height, width
    if min(height, width) != size:
        down, across = (size * height // width, size) if width <= height else (size, size * width // height)
    (top, bottom), (left, right) = (_visible(*side, size) for side in ((height, down), (width, across)))
    return Box(top, left, bottom - top, right - left)


def _visible(stored: int, scaled: int, size: int) -> tuple[int, int]:
    if scaled == size:
        return 0, stored
    first = round((scaled - size) / 2.0)
    start, end = ((first + edge) * stored / scaled for edge in (-0.5, size + 0.5))
    return max(0, math.floor(start)), min(stored, math.ceil(end))


def share_left(box: Box, window: Box) -> float:
    """How much of a trigger a crop leaves: the part of `box` in `window`, over the smaller of their areas.

    1: all of a small trigger is seen, or nothing is seen that a large one does not cover. 0: it is cropped away.
    """
    ends = (min(a + length, b + other) for a, length, b, other in _sides(box, window))
    starts = (max(a, b) for a, _, b, _ in _sides(box, window))
    height, width = (max(0, end - start) for end, start in zip(ends, starts, strict=True))
    return height * width / min(box.height * box.width, window.height * window.width)


def _sides(box: Box, window: Box) -> tuple[tuple[int, int, int, int], ...]:
    return (
        (box.top, box.height, window.top, window.height),
        (box.left, box.width, window.left, window.width),
    )
