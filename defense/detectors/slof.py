from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence, Neighbours


@dataclass(frozen=True, kw_only=True)
class Slof(Detector):
    """Simplified local outlier factor (Schubert et al. 2014): mean over the k nearest r of d_k(i) / d_k(r).

    The released code of Detect (arXiv 2502.01385) reads d_k of other rows than the nearest ones (its column of the row
    itself is deleted before the lookup); this one does not.
    """

    summary = "its surroundings are thinner than those of its neighbours"
    k: int = 16
    batch: int = 0
    """Look within batches of so many pairs, among images and captions, as Detect; 0: everywhere, among images."""

    @property
    def neighbours(self) -> int:
        return 0 if self.batch else self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        return density.everywhere_or_in_batches(evidence, self.batch, self.k, self._factor)

    def _factor(self, near: Neighbours) -> np.ndarray:
        ratios = np.exp(density.outlyingness(near, self.k))
        return ratios.mean(axis=1) if ratios.shape[1] else np.ones(len(ratios))
