from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class KDist(Detector):
    """Distance to the k-th nearest other image (Ramaswamy et al. 2000)."""

    summary = "no other image is near"
    k: int = 16
    batch: int = 0
    """Look within batches of so many pairs, among images and captions, as Detect (arXiv 2502.01385); 0: everywhere."""

    @property
    def neighbours(self) -> int:
        return 0 if self.batch else self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        return density.everywhere_or_in_batches(evidence, self.batch, self.k, lambda near: near.radius(self.k))
