"""Detectors that ask how an image lies among its nearest: in the whole set, or in a batch as they were published."""

from dataclasses import dataclass

import numpy as np

from defense.detector import Detector, Evidence, Neighbours
from infra import seeding


@dataclass(frozen=True, kw_only=True)
class Surroundings(Detector):
    """A subclass has `measure`, of neighbours alone."""

    k: int = 16
    batch: int = 0
    """Look within batches of so many pairs, images and captions, as Detect (arXiv 2502.01385); 0: everywhere."""

    @property
    def neighbours(self) -> int:
        return 0 if self.batch else self.k

    def score(self, evidence: Evidence) -> np.ndarray:
        if not self.batch:
            return self.measure(evidence.near)
        found = np.empty(len(evidence.ids))
        for places, near in in_batches(evidence, self.batch, self.k):
            found[places] = self.measure(near)[: len(places)]
        return found

    def measure(self, near: Neighbours) -> np.ndarray:
        """float64 (M,), of the neighbours of M points."""
        raise NotImplementedError


def in_batches(evidence: Evidence, size: int, count: int) -> list[tuple[np.ndarray, Neighbours]]:
    """The published form: neighbours are looked for within batches of `size` pairs, among images and captions alike.

    A list of (places int64 (B,), neighbours of 2 B points: the images, then the captions), which pairs share a batch
    being drawn by row id. A point's own pair is not among its neighbours. Distances are Euclidean; batches are equally
    large, up to one: the radii of a short last one are no others' measure.
    """
    order = np.argsort(seeding.hash64(0, "batch", evidence.ids))
    found = []
    for places in np.array_split(order, max(1, round(len(order) / size))):
        points = np.concatenate([evidence.images[places], evidence.texts[places]]).astype(np.float64)
        squares = (points**2).sum(axis=1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
        own = np.arange(2 * len(places))
        distances[own, own] = distances[own, (own + len(places)) % len(own)] = np.inf  # left in place: no index shifts
        rows = np.argsort(distances, axis=1, kind="stable")[:, : min(count, len(own) - 2)]
        found.append((places, Neighbours(rows, np.take_along_axis(distances, rows, axis=1))))
    return found
