from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class Disagreement(Detector):
    """1 - mean cosine of a caption with those of the `k` nearest images: a poison that the model did not learn."""

    summary = "images like it have other captions"
    k: int = 16

    @property
    def neighbours(self) -> int:
        return self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        return 1 - density.agreed(evidence, None, self.k)
