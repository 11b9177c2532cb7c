from dataclasses import dataclass

import numpy as np

from defense import density
from defense.density import Surroundings
from defense.detector import Neighbours


@dataclass(frozen=True, kw_only=True)
class Dao(Surroundings):
    """Dimensionality-aware outlier factor (Anderberg et al. 2024): ln of the mean over the k nearest r of
    (d_k(i) / d_k(r)) ** LID(r).

    The logarithm keeps it finite. Unlike the released code of Detect (arXiv 2502.01385) it looks up the neighbours it
    found, and leaves r out of its own dimension.
    """

    summary = "its surroundings are thinner than those of its neighbours, each measured by its own dimension"

    def measure(self, near: Neighbours) -> np.ndarray:
        rows = near.nearest(self.k)
        if not rows.shape[1]:
            return np.zeros(len(rows))
        powers = density.dimension(near, self.k)[rows] * density.outlyingness(near, self.k)
        highest = powers.max(axis=1, keepdims=True)
        return highest[:, 0] + np.log(np.exp(powers - highest).mean(axis=1))
