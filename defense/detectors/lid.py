from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class Lid(Detector):
    """The local intrinsic dimension (Amsaleg et al. 2015), with its sign turned: a low one is suspicious.

    A planted cluster with a moat around it fills few dimensions; published with the other sign (arXiv 2502.01385),
    where fewer than k poisons lie near each other.
    """

    summary = "its neighbours crowd together and leave a void around them"
    k: int = 32
    batch: int = 0
    """Look within batches of so many pairs, among images and captions, as Detect; 0: everywhere, among images."""

    @property
    def neighbours(self) -> int:
        return 0 if self.batch else self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        return -density.everywhere_or_in_batches(
            evidence, self.batch, self.k, lambda near: density.dimension(near, self.k)
        )
