from dataclasses import dataclass

import numpy as np

from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class ClipScore(Detector):
    """1 - cosine of image and caption (CLIPScore, Hessel et al. 2021, arXiv 2104.08718, negated)."""

    summary = "the caption does not fit the image"

    def score(self, evidence: Evidence) -> np.ndarray:
        return 1 - np.einsum("nd,nd->n", evidence.images, evidence.texts, dtype=np.float64)
