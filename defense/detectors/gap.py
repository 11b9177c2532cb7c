from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class Gap(Detector):
    """A dense cluster with a moat, of whatever size: the largest ln(d_4k / d_k) over k = 4, 8, ..., `widest`.

    Of a cluster of c rows the k-th neighbour is near for k < c and far for k > c. Nobody knows c, so every scale is
    asked. Smoothed over the nearest `smooth`. In a set of fewer than 4 k rows d_4k is the farthest.
    """

    summary = "it lies in a dense cluster with a moat"
    widest: int = 256
    smooth: int = 16

    @property
    def neighbours(self) -> int:
        return self.smooth

    @property
    def reach(self) -> int:
        return 4 * self.widest

    def score(self, evidence: Evidence) -> np.ndarray:
        scales = [2**power for power in range(2, self.widest.bit_length())]
        jumps = [np.log(evidence.near.radius(4 * k) / evidence.near.radius(k)) for k in scales]
        return density.smoothed(np.max(jumps, axis=0), evidence.near, self.smooth)
