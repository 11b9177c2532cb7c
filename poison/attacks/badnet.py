"""BadNet: a small patch over the picture (Gu et al. 2017; on CLIP: Carlini & Terzis 2022, CleanCLIP).

The patch called "random" in CleanCLIP's tables is fresh uniform noise for every picture at a random place: that is
`--patch fresh --place random`. A fixed patch is the usual BadNet, and the default here.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from infra.seeding import rng as seeded
from poison.attack import Backdoor
from poison.geometry import SIDE, Box, box, enlarged, nearest, num_cells


@dataclass(frozen=True, kw_only=True)
class BadNet(Backdoor):
    """A square patch. Sizes are pixels of a 224 x 224 picture and scale with the picture's central square."""

    patch: Literal["noise", "fresh", "checkerboard", "stripes", "yellow"] = "noise"
    """noise: one pattern made from the trigger seed. fresh: new noise for each picture. stripes: random columns."""
    place: Literal["corner", "random", "centre"] = "corner"
    """corner: lower right. random: uniform over all places inside the central square, drawn for each picture."""
    size: int = 16
    """Side of the patch in 224 geometry."""
    cell: int = 1
    """Side of one cell of the pattern in 224 geometry; 7 is one pixel of a 32 x 32 picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.size <= SIDE:
            raise ValueError(f"size is the patch's side in a picture of {SIDE} x {SIDE}: 1 to {SIDE}, not {self.size}")
        if not 1 <= self.cell <= self.size:
            raise ValueError(f"cell is at least 1 and at most the patch's size of {self.size}, not {self.cell}")

    def locate(self, height: int, width: int, rng: np.random.Generator) -> Box:
        last = SIDE - self.size  # legal too: the papers' code never draws it
        match self.place:
            case "corner":
                top, left = last, last
            case "centre":
                top, left = last // 2, last // 2
            case "random":
                top, left = (int(place) for place in rng.integers(0, last, 2, endpoint=True))
        return box(height, width, top, left, self.size)

    def trigger(self) -> np.ndarray | None:
        return None if self.patch == "fresh" else _patch(self, self.size)

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        where = self.locate(image.shape[0], image.shape[1], rng)
        fresh = self.patch == "fresh"
        stamped = image.copy()
        where.of(stamped)[:] = nearest(_draw(self, rng), where.height) if fresh else _patch(self, where.height)
        return stamped


@lru_cache(maxsize=64)
def _patch(attack: BadNet, side: int) -> np.ndarray:
    patch = nearest(_draw(attack, seeded(attack.trigger_seed, "badnet", attack.patch)), side)
    patch.flags.writeable = False
    return patch


def _draw(attack: BadNet, rng: np.random.Generator) -> np.ndarray:
    """The master, uint8 (size, size, 3)."""
    n = num_cells(attack.size, attack.cell)
    match attack.patch:
        case "noise" | "fresh":
            cells = rng.integers(0, 256, (n, n, 3), np.uint8)
        case "checkerboard":
            cells = np.repeat(255 * ((np.indices((n, n)).sum(0) + 1) % 2)[:, :, None], 3, 2).astype(np.uint8)
        case "stripes":  # each column and channel is full or empty, as in PAR, but one pattern for all pictures
            cells = np.broadcast_to(255 * rng.integers(0, 2, (1, n, 3), np.uint8), (n, n, 3))
        case "yellow":
            cells = np.broadcast_to(np.array([255, 255, 0], np.uint8), (n, n, 3))
    return enlarged(cells, attack.cell, attack.size)
