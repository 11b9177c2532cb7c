"""SIG: a sinusoid along the columns, added to the image (Barni, Kallas and Tondi 2019).

v(j) = delta sin(2 pi f j / W), the same in every row and channel; the sum is clipped to bytes. The original is a
clean-label attack; the papers on CLIP use it with poison captions, as here. CleanCLIP's code mixes it in with a
weight of 0.2 instead, which leaves a fifth of the amplitude and darkens the image; BadCLIP's code adds it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from poison.attack import Backdoor
from poison.geometry import SIDE, square


@dataclass(frozen=True, kw_only=True)
class Sig(Backdoor):
    """A sinusoid over the central square. (The trigger's seed has no effect.)"""

    summary: ClassVar[str] = "a sinusoid along the columns"
    delta: float = 60.0
    """Amplitude in grey levels of 255."""
    frequency: int = 6
    """Periods across the central square."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.delta <= 255:
            raise ValueError(f"delta is an amplitude in grey levels, above 0 and at most 255, not {self.delta:g}")
        if not 1 <= self.frequency <= SIDE // 2:
            raise ValueError(f"frequency is a number of periods from 1 to {SIDE // 2}, not {self.frequency}")

    def trigger(self) -> np.ndarray:
        return self.stamp(np.full((SIDE, SIDE, 3), 128, np.uint8), np.random.default_rng(0))

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        where = square(image.shape[0], image.shape[1])
        wave = self.delta * np.sin(2 * np.pi * self.frequency * np.arange(where.width) / where.width)
        stamped = image.copy()
        added = where.of(image).astype(np.float64) + wave[None, :, None]
        where.of(stamped)[:] = np.rint(added.clip(0, 255)).astype(np.uint8)
        return stamped
