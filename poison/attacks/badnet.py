"""BadNet: a small patch over the image (Gu et al. 2017; on CLIP: Carlini & Terzis 2022, CleanCLIP).

The patch called "random" in CleanCLIP's tables is fresh uniform noise for every image at a random place: that is
`--patch fresh --place random`. PAR's stripes are fresh too: `--patch fresh_stripes --place random`. A fixed patch is
the usual BadNet, and the default here.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from infra.seeding import rng as seeded
from poison.geometry import enlarged, nearest, num_cells
from poison.patched import Patched

FRESH = ("fresh", "fresh_stripes")


@dataclass(frozen=True, kw_only=True)
class BadNet(Patched):
    """A square patch with a pattern."""

    summary: ClassVar[str] = "a small patch over the image"
    patch: Literal["noise", "fresh", "checkerboard", "stripes", "fresh_stripes", "yellow"] = "noise"
    """noise: one pattern made from the trigger seed. fresh: new noise for each image. stripes: random columns, each
    channel 0 or 255; fresh_stripes: new ones for each image."""
    cell: int = 1
    """Side of one cell of the pattern in 224 geometry; 7 is one pixel of a 32 x 32 image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.cell <= self.size:
            raise ValueError(f"cell is at least 1 and at most the patch's size of {self.size}, not {self.cell}")

    def trigger(self) -> np.ndarray | None:
        return None if self.patch in FRESH else _patch(self, self.size)

    def drawn(self, side: int, rng: np.random.Generator) -> np.ndarray:
        return nearest(_draw(self, rng), side) if self.patch in FRESH else _patch(self, side)


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
        case "stripes" | "fresh_stripes":  # 0 or 255; PAR's code wraps its -1, which leaves 1 or 255
            cells = np.broadcast_to(255 * rng.integers(0, 2, (1, n, 3), np.uint8), (n, n, 3))
        case "yellow":
            cells = np.broadcast_to(np.array([255, 255, 0], np.uint8), (n, n, 3))
    return enlarged(cells, attack.cell, attack.size)
