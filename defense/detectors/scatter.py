from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class Scatter(Detector):
    """Whether neighbours part when all images are changed: ln of the mean distance to one's `k` nearest, after over
    before, smoothed over them.
    """

    summary = "its neighbours leave it when the images are changed"
    view: str = "blur"
    k: int = 16

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def neighbours(self) -> int:
        return self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        rows = evidence.near.nearest(self.k)
        if not rows.shape[1]:
            return np.zeros(len(rows))
        after = density.distance_to(evidence.changed[self.view].images, rows)
        return density.smoothed(np.log(after / density.distance_to(evidence.images, rows)), evidence.near, self.k)
