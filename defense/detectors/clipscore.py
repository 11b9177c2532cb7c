from dataclasses import dataclass

import numpy as np

from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class ClipScore(Detector):
    """1 - cosine of image and caption (CLIPScore, Hessel et al. 2021, arXiv 2104.08718, negated)."""

    summary = "the caption does not fit the image"

    def score(self, evidence: Evidence) -> np.ndarray:
        return unfit(evidence.images, evidence.texts)


def unfit(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """float64 (N,). images, texts: float32 (N, D), of length 1."""
    return 1 - np.einsum("nd,nd->n", images, texts, dtype=np.float64)
