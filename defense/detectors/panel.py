from dataclasses import dataclass

import numpy as np

from defense import density
from defense.changing import views
from defense.detector import Detector, Evidence
from defense.detectors.agreement import Agreement
from defense.detectors.clipscore import ClipScore
from defense.detectors.gap import Gap
from defense.detectors.glimpse import Glimpse
from defense.detectors.keyhole import Keyhole
from defense.detectors.misfit import Misfit
from defense.detectors.scatter import Scatter
from defense.detectors.shift import Shift

LEAST_SPREAD = 1e-6  # of a score over the set: one that is the same for nearly all says nothing
ORDINARY = 2.0  # robust z; what lies below is no evidence, nor counts against other evidence
ORDINARY_OF_PLACES = 4.0  # the same of the largest over keyholes: of nine, one is large by chance
MORE = 0.3  # agreement of a row's own glimpse beyond its changed image, to count in full
KEYHOLE = 2  # times what it adds: of a learned patch no other member has evidence
ENOUGH = 8.0  # beyond: near-duplicates have a moat of any depth, and shall be seen, but not before poisons


@dataclass(frozen=True, kw_only=True)
class Panel(Detector):
    """One fusion for all attacks: the sum, over `clipscore` and, with every view, `agreement`, `misfit`, `scatter`,
    `shift` and once more `gap`, of how far a robust z lies above 2, up to 8 each.

    z is the distance to the set's median in units of 1.4826 times the median absolute deviation, of scores averaged
    `steps` times over the nearest: chance does not outlive that, and what natural rows have of any one score is less.
    A trigger breaks under one change and not under another, so evidence that is absent subtracts nothing.

    And twice, over all `keyholes`, the most that z of `keyhole` lies above 4: a learned patch leaves its image in no
    cluster, but for the part that holds it. And with every view once more, the most that z of `glimpse` lies above 4:
    few poisons of a patch are in none either, and their captions fit. Of a row whose own glimpse says no more than its
    changed image that is no evidence, from MORE on all of it.
    """

    summary = "a dense cluster that shares its captions, and no longer lies together when the images are changed"
    changes: tuple[str, ...] = ("blur", "crop", "centre", "levels")
    keyholes: tuple[str, ...] = views.KEYHOLES
    k: int = 16
    peers: int = 64
    steps: int = 2

    @property
    def views(self) -> tuple[str, ...]:
        return (*self.changes, *self.keyholes)

    @property
    def neighbours(self) -> int:
        return max(self.k, Glimpse().k) if self.keyholes else self.k

    @property
    def captions(self) -> int:
        return self.peers

    @property
    def reach(self) -> int:
        return max(member.reach for member in self.members())

    def members(self) -> list[Detector]:
        """Whose scores are summed; those of keyholes aside, of which the largest counts."""
        found: list[Detector] = [Gap(smooth=self.k), ClipScore()]
        for view in self.changes:
            found += [Agreement(view=view, k=self.k), Misfit(view=view, k=self.k), Scatter(view=view, k=self.k)]
            found += [Shift(view=view, smooth=self.k, peers=self.peers)]
        return found

    def score(self, evidence: Evidence) -> np.ndarray:
        apart = density.distance_to(evidence.images, evidence.near.nearest(self.k))
        total = np.zeros(len(evidence.ids))
        for member in self.members():
            scores = member.since(apart, evidence) if isinstance(member, Scatter) else member.score(evidence)
            # A gap needs no view, and weighs as much as what each view adds.
            weight = len(self.changes) if isinstance(member, Gap) else 1
            total += weight * evident(density.around(scores, evidence.near, self.k, self.steps))
        return total + self.through_keyholes(evidence) if self.keyholes else total

    def through_keyholes(self, evidence: Evidence) -> np.ndarray:
        """What they add: float64 (N,)."""
        unfit = ClipScore().score(evidence)
        walks = [Keyhole(view=view, k=self.k, steps=self.steps).of(unfit, evidence) for view in self.keyholes]
        seen = []
        for glimpse in (Glimpse(view=view, changes=self.changes) for view in self.keyholes):
            # Clean rows have a dense cluster for neighbours, too: only where their own caption is said does it count.
            own = np.clip(glimpse.own(evidence) / MORE, 0, 1)
            seen.append(own * evident(glimpse.score(evidence), ORDINARY_OF_PLACES))
        unfit_there = np.max([evident(scores, ORDINARY_OF_PLACES) for scores in walks], axis=0)
        return KEYHOLE * unfit_there + len(self.changes) * np.max(seen, axis=0)

    def and_witness(self, scores: np.ndarray, unfit: np.ndarray) -> np.ndarray:
        """Its scores with what a witness adds, which learned from fewer of the pairs: how far the robust z of `unfit`,
        how ill captions fit to it, lies above 2, up to 8, as often as a gap counts. All float64 (N,).

        Of the row itself, not of those around it: to a witness poisons lie among what they show.
        """
        return scores + len(self.changes) * evident(unfit)

    def lost(self, evidence: Evidence, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Agreement of captions that `rows`, int (M,), lose under each change, not smoothed: float64 (M,) by view."""
        before = density.agreed(evidence, None, self.k)[rows]
        return {view: before - density.agreed(evidence, view, self.k)[rows] for view in self.changes}


def evident(scores: np.ndarray, ordinary: float = ORDINARY) -> np.ndarray:
    """How far the robust z of every score lies above `ordinary`, from 0 to ENOUGH: float64 (N,)."""
    median = np.median(scores)
    spread = 1.4826 * np.median(np.abs(scores - median))
    return np.clip((scores - median) / max(float(spread), LEAST_SPREAD) - ordinary, 0, ENOUGH)
