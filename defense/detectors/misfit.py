from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Evidence, InView


@dataclass(frozen=True, kw_only=True)
class Misfit(InView):
    """What it falls among: how much better the captions of the `k` nearest changed images fit each other than its own
    caption fits them. Smoothed over the nearest.

    An image that a change ruins falls among captions of all kinds, so its own is no worse than theirs; a poisoned one
    falls among images of what it shows, which agree.
    """

    summary = "changed, it falls among images whose captions agree with each other and not with its own"

    def score(self, evidence: Evidence) -> np.ndarray:
        near = evidence.changed[self.view].near
        apart = density.accord(evidence.texts, near, self.k) - density.agreed(evidence, self.view, self.k)
        return density.smoothed(apart, evidence.near, self.k)
