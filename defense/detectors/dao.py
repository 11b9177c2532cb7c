from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence, Neighbours


@dataclass(frozen=True, kw_only=True)
class Dao(Detector):
    """Dimensionality-aware outlier factor (Anderberg et al. 2024): ln of the mean over the k nearest r of
    (d_k(i) / d_k(r)) ** LID(r).

    The logarithm keeps it finite. Unlike the released code of Detect (arXiv 2502.01385) it looks up the neighbours it
    found, and leaves r out of its own dimension.
    """

    summary = "its surroundings are thinner than those of its neighbours, each measured by its own dimension"
    k: int = 16
    batch: int = 0
    """Look within batches of so many pairs, among images and captions, as Detect; 0: everywhere, among images."""

    @property
    def neighbours(self) -> int:
        return 0 if self.batch else self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        return density.everywhere_or_in_batches(evidence, self.batch, self.k, self._factor)

    def _factor(self, near: Neighbours) -> np.ndarray:
        rows = near.nearest(self.k)
        if not rows.shape[1]:
            return np.zeros(len(rows))
        powers = density.dimension(near, self.k)[rows] * density.outlyingness(near, self.k)
        highest = powers.max(axis=1, keepdims=True)
        return highest[:, 0] + np.log(np.exp(powers - highest).mean(axis=1))
