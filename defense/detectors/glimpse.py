from dataclasses import dataclass

import numpy as np

from defense import density
from defense.detector import Evidence, InView


@dataclass(frozen=True, kw_only=True)
class Glimpse(InView):
    """A part says what the caption says, and the whole no longer does once it is changed: how much better a caption
    agrees with those of the `k` nearest through a keyhole than with those of the `k` nearest changed images, under the
    median of the changes. Averaged over the nearest through the keyhole.

    A few poisons of a patch lie scattered among what their captions name: to them no walk among whole images comes
    back. Through the keyhole that holds the patch they are one image, and nothing else is that image. A thing that
    is there is mostly seen as a whole, changed or not, as well as by a glimpse of it; a logo with its own word
    is not.
    """

    summary = "what its caption says shows through a keyhole, and in the whole image no longer when it is changed"
    view: str = "middle"
    k: int = 8
    changes: tuple[str, ...] = ("blur", "crop", "centre", "levels")

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view, *self.changes)

    def score(self, evidence: Evidence) -> np.ndarray:
        return density.around(self.own(evidence), evidence.changed[self.view].near, self.k, 1)

    def own(self, evidence: Evidence) -> np.ndarray:
        """Before it is averaged: float64 (N,)."""
        changed = np.median([density.agreed(evidence, view, self.k) for view in self.changes], axis=0)
        return density.agreed(evidence, self.view, self.k) - changed
