from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Evidence, InView
from defense.detectors.clipscore import ClipScore


@dataclass(frozen=True, kw_only=True)
class Keyhole(InView):
    """How ill a caption fits its image, averaged `steps` times over the `k` nearest through a keyhole, a view that
    shows a part of the image alone.

    A learned patch takes its image into the midst of the target's, whose captions agree with its own: as a whole it
    lies in no cluster. Through a keyhole that holds the patch, poisons are the same image again and again, and nothing
    but poisons. A caption of any one may fit ill by chance; those of all that share a part do not.
    """

    summary = "captions do not fit the images that look like it through a keyhole"
    view: str = "middle"
    steps: int = 2

    def score(self, evidence: Evidence) -> np.ndarray:
        return self.of(ClipScore().score(evidence), evidence)

    def of(self, unfit: np.ndarray, evidence: Evidence) -> np.ndarray:
        """The score, how ill captions fit being known: who looks through several keyholes works it out once."""
        return density.around(unfit, evidence.changed[self.view].near, self.k, self.steps)
