from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Detector, Evidence


@dataclass(frozen=True, kw_only=True)
class Shift(Detector):
    """How far the embedding moves when the image is changed: ln of the distance, smoothed over the nearest `smooth`.

    `peers`: minus the mean of that over so many pairs with the nearest captions, since fish move farther than balls.
    """

    summary = "its embedding moves when the image is changed"
    view: str = "crop"
    smooth: int = 16
    peers: int = 64

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def neighbours(self) -> int:
        return self.smooth

    @property
    def captions(self) -> int:
        return self.peers

    def score(self, evidence: Evidence) -> np.ndarray:
        move = np.log(density.moved(evidence.images, evidence.changed[self.view].images))
        if self.peers:
            assert evidence.captions is not None
            rows = evidence.captions.nearest(self.peers)
            move = move - (move[rows].mean(axis=1) if rows.shape[1] else 0)
        return density.smoothed(move, evidence.near, self.smooth)
