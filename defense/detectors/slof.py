from dataclasses import dataclass

import numpy as np

from defense import density
from defense.density import Surroundings
from defense.detector import Neighbours


@dataclass(frozen=True, kw_only=True)
class Slof(Surroundings):
    """Simplified local outlier factor (Schubert et al. 2014): mean over the k nearest r of d_k(i) / d_k(r).

    The released code of Detect (arXiv 2502.01385) reads d_k of other rows than the nearest ones (its column of the row
    itself is deleted before the lookup); this one does not.
    """

    summary = "its surroundings are thinner than those of its neighbours"

    def measure(self, near: Neighbours) -> np.ndarray:
        ratios = np.exp(density.outlyingness(near, self.k))
        return ratios.mean(axis=1) if ratios.shape[1] else np.ones(len(ratios))
