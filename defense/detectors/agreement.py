from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Evidence, InView


@dataclass(frozen=True, kw_only=True)
class Agreement(InView):
    """Agreement lost: how much better a caption fits those of the `k` nearest images before all images are changed
    than those of the `k` nearest changed images after. Smoothed over the nearest.

    A poisoned image shares its caption with its neighbours only through the trigger; changed, it falls among images
    that look like it, whose captions say something else.
    """

    summary = "its neighbours' captions agree with its own until the images are changed"

    def score(self, evidence: Evidence) -> np.ndarray:
        lost = density.agreed(evidence, None, self.k) - density.agreed(evidence, self.view, self.k)
        return density.smoothed(lost, evidence.near, self.k)
