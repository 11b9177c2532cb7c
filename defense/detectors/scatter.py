from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Evidence, InView


@dataclass(frozen=True, kw_only=True)
class Scatter(InView):
    """Whether neighbours part when all images are changed: ln of the mean distance to one's `k` nearest, after over
    before, smoothed over them.
    """

    summary = "its neighbours leave it when the images are changed"

    def score(self, evidence: Evidence) -> np.ndarray:
        return self.since(density.distance_to(evidence.images, evidence.near.nearest(self.k)), evidence)

    def since(self, before: np.ndarray, evidence: Evidence) -> np.ndarray:
        """The score, the mean distance before the change being known: who asks for several views works it out once."""
        after = density.distance_to(evidence.changed[self.view].images, evidence.near.nearest(self.k))
        return density.smoothed(np.log(after / before), evidence.near, self.k)
