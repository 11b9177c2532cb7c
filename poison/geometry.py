"""Where a trigger lies: a master drawn for an image of 224 x 224, laid relative to the central square of any image.

On a 224 x 224 image this is exactly the papers' geometry; elsewhere place and size scale with the square's side, so
that no evaluation crop removes the trigger and every size shows the same pattern. The resampler is nearest neighbour.
"""

from typing import NamedTuple

import numpy as np

SIDE = 224


class Box(NamedTuple):
    """A rectangle in the pixels of a stored image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The view of this rectangle: uint8 (height, width, 3)."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def square(height: int, width: int) -> Box:
    """The central square of an image, as a centre crop takes it."""
    side = min(height, width)
    return Box((height - side) // 2, (width - side) // 2, side, side)


def box(height: int, width: int, top: int, left: int, size: int) -> Box:
    """A patch of `size` at (top, left) in 224 geometry, in an image of height x width; at least one pixel."""
    assert 0 <= top <= SIDE - size
    assert 0 <= left <= SIDE - size
    outer = square(height, width)
    side = max(1, _scaled(size, outer.height))
    # Rounding halves up, with the limit, leaves a patch in the far corner flush with the edge at every size.
    down, across = (min(_scaled(place, outer.height), outer.height - side) for place in (top, left))
    return Box(outer.top + down, outer.left + across, side, side)


def nearest(master: np.ndarray, side: int) -> np.ndarray:
    """(n, n, 3) -> (side, side, 3): each pixel takes the master's value under its centre."""
    index = (2 * np.arange(side) + 1) * len(master) // (2 * side)
    return master[index[:, None], index[None, :]]


def enlarged(cells: np.ndarray, cell: int, size: int) -> np.ndarray:
    """Cells (n, n, 3) of `cell` pixels each -> a master (size, size, 3); n must be num_cells(size, cell)."""
    assert len(cells) == num_cells(size, cell)
    index = np.arange(size) // cell
    return cells[index[:, None], index[None, :]]


def num_cells(size: int, cell: int) -> int:
    """How many cells lie along a side, a cut one included."""
    return -(-size // cell)


def _scaled(length: int, side: int) -> int:
    return (2 * length * side + SIDE) // (2 * SIDE)
