"""A backdoor whose trigger is a square patch: where it lies, in one place for all attacks that have one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from poison.attack import Backdoor
from poison.geometry import SIDE, Box, box

Place = Literal["corner", "random", "centre", "four_corners"]


@dataclass(frozen=True, kw_only=True)
class Patched(Backdoor):
    """A square patch. Sizes are pixels of a 224 x 224 image and scale with the image's central square."""

    place: Place = "corner"
    """corner: lower right. centre: the middle. random: uniform over all places inside the central square, drawn for
    each image. four_corners: one patch in all four corners of the central square."""
    size: int = 16
    """Side of the patch in 224 geometry."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.size <= SIDE:
            raise ValueError(f"size is the patch's side in an image of {SIDE} x {SIDE}: 1 to {SIDE}, not {self.size}")

    def drawn(self, side: int, rng: np.random.Generator) -> np.ndarray:
        """The patch for an image in which it is `side` pixels wide: uint8 (side, side, 3)."""
        raise NotImplementedError

    def boxes(self, height: int, width: int, rng: np.random.Generator) -> tuple[Box, ...]:
        """Where the patch lies in a stored image: one box, or four. They overlap where they would not fit."""
        last = SIDE - self.size  # legal too: the papers' code never draws it
        match self.place:
            case "corner":
                places = [(last, last)]
            case "centre":
                places = [(last // 2, last // 2)]
            case "random":
                top, left = (int(place) for place in rng.integers(0, last, 2, endpoint=True))
                places = [(top, left)]
            case "four_corners":
                places = [(0, 0), (0, last), (last, 0), (last, last)]
        return tuple(box(height, width, top, left, self.size) for top, left in places)

    def locate(self, height: int, width: int, rng: np.random.Generator) -> Box | None:
        """None for four corners: one box that holds them all would be the whole square."""
        found = self.boxes(height, width, rng)
        return found[0] if len(found) == 1 else None

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        boxes = self.boxes(image.shape[0], image.shape[1], rng)  # first of all draws: `locate` finds them again
        patch = self.drawn(boxes[0].height, rng)
        stamped = image.copy()
        for where in boxes:
            where.of(stamped)[:] = patch
        return stamped
