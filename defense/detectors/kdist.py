from dataclasses import dataclass

import numpy as np

from defense.density import Surroundings
from defense.detector import Neighbours


@dataclass(frozen=True, kw_only=True)
class KDist(Surroundings):
    """Distance to the k-th nearest other image (Ramaswamy et al. 2000)."""

    summary = "no other image is near"

    def measure(self, near: Neighbours) -> np.ndarray:
        return near.radius(self.k)
