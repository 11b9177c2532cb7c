"""Blended: a pattern mixed into the whole central square (Chen et al. 2017), alpha n + (1 - alpha) x.

CleanCLIP's "blended" draws its uniform noise anew for every picture: that is `--pattern fresh`, in effect a loss of
contrast with weak white noise. One fixed pattern is the original attack, and the default here.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from infra.seeding import rng as seeded
from poison.attack import Backdoor
from poison.geometry import SIDE, enlarged, nearest, num_cells, square


@dataclass(frozen=True, kw_only=True)
class Blended(Backdoor):
    """Uniform colour noise, blended in."""

    alpha: float = 0.2
    """Weight of the pattern; the picture keeps 1 - alpha."""
    pattern: Literal["noise", "fresh"] = "noise"
    """noise: one pattern made from the trigger seed. fresh: new noise for each picture."""
    cell: int = 1
    """Side of one cell of the noise in 224 geometry; 7 is one pixel of a 32 x 32 picture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is the pattern's weight, above 0 and at most 1, not {self.alpha:g}")
        if not 1 <= self.cell <= SIDE:
            raise ValueError(f"cell is a side in a picture of {SIDE} x {SIDE}: 1 to {SIDE}, not {self.cell}")

    def trigger(self) -> np.ndarray | None:
        return None if self.pattern == "fresh" else _pattern(self, SIDE)

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        where = square(image.shape[0], image.shape[1])
        pattern = nearest(_draw(self, rng), where.height) if self.pattern == "fresh" else _pattern(self, where.height)
        stamped = image.copy()
        mixed = self.alpha * pattern.astype(np.float64) + (1 - self.alpha) * where.of(image).astype(np.float64)
        where.of(stamped)[:] = np.rint(mixed.clip(0, 255)).astype(np.uint8)  # rint: half to even
        return stamped


@lru_cache(maxsize=16)
def _pattern(attack: Blended, side: int) -> np.ndarray:
    pattern = nearest(_draw(attack, seeded(attack.trigger_seed, "blended")), side)
    pattern.flags.writeable = False
    return pattern


def _draw(attack: Blended, rng: np.random.Generator) -> np.ndarray:
    """The master, uint8 (224, 224, 3)."""
    n = num_cells(SIDE, attack.cell)
    return enlarged(rng.integers(0, 256, (n, n, 3), np.uint8), attack.cell, SIDE)
