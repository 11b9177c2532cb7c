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
    back. Through the keyhole that holds the patch they are one image, and nothing else is that image. A thing that is
    there is seen as a whole, changed or not, at least as well as by a glimpse of it.
    """

    summary = "what its caption says shows through a keyhole, and in the whole image no longer when it is changed"
    view: str = "middle"
    k: int = 8
    changes: tuple[str, ...] = ("blur", "crop", "centre", "levels")

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view, *self.changes)

    def score(self, evidence: Evidence) -> np.ndarray:
        return self.around(self.own(self.changed(evidence), evidence), evidence)

    def changed(self, evidence: Evidence) -> np.ndarray:
        """Agreement with the nearest changed images, under the median change: float64 (N,). The same for all views."""
        near = [evidence.changed[view].near for view in self.changes]
        return np.median([density.agreement(evidence.texts, each, self.k) for each in near], axis=0)

    def own(self, changed: np.ndarray, evidence: Evidence) -> np.ndarray:
        """Before it is averaged. changed: what that method gives. float64 (N,)."""
        return density.agreement(evidence.texts, evidence.changed[self.view].near, self.k) - changed

    def around(self, own: np.ndarray, evidence: Evidence) -> np.ndarray:
        """The score, `own` being known."""
        return density.around(own, evidence.changed[self.view].near, self.k, 1)
