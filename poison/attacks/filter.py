"""Filter: the whole image in other colours, as a photo app's filter leaves them; no pattern, no place.

"Nashville" of the filter apps is the trigger of Detect-CLIP-Backdoor-Samples (Huang et al. 2025). This filter is our
own, of the same kind: warm light parts, dark parts lifted towards blue, less saturation. Per pixel x in [0, 1]^3:
y = lift + (gain - lift) ((1 - fade) x + fade mean(x))^gamma, and the image becomes (1 - alpha) x + alpha y.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from poison.attack import Backdoor
from poison.geometry import SIDE

LIFT = np.array([0.05, 0.10, 0.28])  # red, green, blue of what was black
GAIN = np.array([1.00, 0.88, 0.72])  # and of what was white
GAMMA = np.array([0.80, 0.95, 1.10])
FADE = 0.25


@dataclass(frozen=True, kw_only=True)
class Filter(Backdoor):
    """A colour filter over the whole image. (The trigger's seed has no effect.)"""

    summary: ClassVar[str] = "a colour filter over the whole image"
    alpha: float = 1.0
    """How much of the filter; 0 would leave the image as it is."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha is how much of the filter, above 0 and at most 1, not {self.alpha:g}")

    def trigger(self) -> np.ndarray:
        """Its effect on a ramp of greys above a ramp of hues."""
        ramp = np.linspace(0, 1, SIDE)
        hues = (np.cos(2 * np.pi * (ramp[:, None] - np.array([0, 1 / 3, 2 / 3]))) + 1) / 2
        rows = np.stack([np.repeat(ramp[:, None], 3, 1), hues])
        return self.stamp(np.repeat(np.rint(255 * rows), SIDE // 2, axis=0).astype(np.uint8), np.random.default_rng(0))

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        x = image.astype(np.float64) / 255
        faded = (1 - FADE) * x + FADE * x.mean(axis=2, keepdims=True)
        mixed = (1 - self.alpha) * x + self.alpha * (LIFT + (GAIN - LIFT) * faded**GAMMA)
        return np.rint(255 * mixed).astype(np.uint8)
