"""What a detector is: arrays of a whole set in, one number a pair out, higher is more suspicious.

It knows no model, no file, no ledger. A subclass is one file in `defense/detectors/`, a frozen dataclass whose fields
are its knobs; what it needs of the evidence it says in `views`, `neighbours`, `reach` and `captions`.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from infra import plugins

CLOSE = 1e-6  # distances below are this one: rows so near are the same, and a ratio of their distances says nothing


@dataclass(frozen=True)
class Neighbours:
    """The nearest other rows of every row, the nearest first; of equal distances the lower row id first.

    rows: int (N, K), their places in the set; the row itself is never among them, whatever equals it. distances:
    float64 (N, K), half the squared distance of two rows of length 1: 1 - cosine, exact where they are close too. K is
    what was asked for, or N - 1 where that is less. radii: float64 (N,) by rank, of ranks beyond K (N - 1 among them
    where it is less than the largest).
    """

    rows: np.ndarray
    distances: np.ndarray
    radii: dict[int, np.ndarray] = field(default_factory=dict)

    def nearest(self, count: int) -> np.ndarray:
        """The places of the `count` nearest, fewer where there are fewer: int (N, min(count, N - 1))."""
        assert count <= self.rows.shape[1] or self.are_all, "more than was asked for"
        return self.rows[:, :count]

    def radius(self, rank: int) -> np.ndarray:
        """Distance to the `rank`-th nearest other row, the farthest where there are fewer: float64 (N,), >= CLOSE."""
        rank = min(rank, self.rows.shape[1] if self.are_all else len(self.rows) - 1)
        if rank <= 0:
            return np.full(len(self.rows), CLOSE)
        found = self.distances[:, rank - 1] if rank <= self.rows.shape[1] else self.radii[rank]
        return np.maximum(found.astype(np.float64), CLOSE)

    @property
    def are_all(self) -> bool:
        """Whether there are no more others than these; of pairs within a batch, one's own other half is none."""
        return self.rows.shape[1] >= len(self.rows) - 2


@dataclass(frozen=True)
class Changed:
    """All images after one change of `defense.changing.views`. images: float32 (N, D) of length 1; near: neighbours of
    these among these.
    """

    images: np.ndarray
    near: Neighbours


@dataclass(frozen=True)
class Evidence:
    """A set of pairs as one model sees it. ids: int64 (N,), row ids; images, texts: float32 (N, D), of length 1.

    near: neighbours among the images; captions: among the texts, None where no detector asks. changed: by view.
    agreements: what `density.agreed` has worked out.
    """

    ids: np.ndarray
    images: np.ndarray
    texts: np.ndarray
    near: Neighbours
    captions: Neighbours | None = None
    changed: dict[str, Changed] = field(default_factory=dict)
    agreements: dict[tuple[str | None, int], np.ndarray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Detector:
    """The base of all detectors. `views`: the changed views it reads. `neighbours`: how many nearest images, of the
    plain and of every changed view; `reach`: the largest rank whose distance it reads among plain images (beyond
    `neighbours`: powers of two); `captions`: how many nearest texts.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("defense.detectors",)
    summary: ClassVar[str] = ""
    """What makes a pair suspicious, in a few words: `the image moves when it is cropped`."""

    @property
    def views(self) -> tuple[str, ...]:
        return ()

    @property
    def neighbours(self) -> int:
        return 0

    @property
    def reach(self) -> int:
        return 0

    @property
    def captions(self) -> int:
        return 0

    def score(self, evidence: Evidence) -> np.ndarray:
        """float64 (N,), finite, higher is more suspicious. Pure: a row's score goes with the row in any order."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class InView(Detector):
    """The base of detectors that look at the `k` nearest images before and after one change of all images."""

    view: str = "blur"
    k: int = 16

    @property
    def views(self) -> tuple[str, ...]:
        return (self.view,)

    @property
    def neighbours(self) -> int:
        return self.k


@dataclass(frozen=True)
class Needs:
    """What a set of detectors asks for altogether; the fields are those of Detector."""

    views: tuple[str, ...]
    neighbours: int
    reach: int
    captions: int


def needs(detectors: list[Detector]) -> Needs:
    """What the evidence of all of them must hold. views: sorted."""
    return Needs(
        views=tuple(sorted({view for detector in detectors for view in detector.views})),
        neighbours=max((detector.neighbours for detector in detectors), default=0),
        reach=max((detector.reach for detector in detectors), default=0),
        captions=max((detector.captions for detector in detectors), default=0),
    )


def ranks(needs: Needs) -> list[int]:
    """The ranks that `Neighbours.radii` of the plain images holds: powers of two above `neighbours`, to `reach`."""
    return [2**power for power in range(needs.reach.bit_length()) if needs.neighbours < 2**power <= needs.reach]


def named(name: str) -> Detector:
    """The detector of that name, with its defaults. Raises ValueError that lists what exists."""
    return plugins.load(Detector.FOLDERS, name, Detector)()
