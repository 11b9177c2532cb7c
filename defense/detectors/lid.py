from dataclasses import dataclass

import numpy as np

from defense import density
from defense.density import Surroundings
from defense.detector import Neighbours


@dataclass(frozen=True, kw_only=True)
class Lid(Surroundings):
    """The local intrinsic dimension (Amsaleg et al. 2015), with its sign turned: a low one is suspicious.

    A planted cluster with a moat around it fills few dimensions; published with the other sign (arXiv 2502.01385),
    where fewer than k poisons lie near each other.
    """

    summary = "its neighbours crowd together and leave a void around them"
    k: int = 32

    def measure(self, near: Neighbours) -> np.ndarray:
        return -density.dimension(near, self.k)
