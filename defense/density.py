"""How dense a set is around its rows: mathematics on nearest neighbours that several detectors share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from defense import threads
from defense.detector import CLOSE, Detector, Evidence, Neighbours
from infra import seeding

LARGEST_DIMENSION = 1000.0  # where all neighbours are equally far the estimate is infinite
CELLS = 2**19  # numbers that a thread holds at a time: 2 MiB stay in a core's cache


def smoothed(values: np.ndarray, near: Neighbours, count: int) -> np.ndarray:
    """Half a row's own value, half the mean of its `count` nearest: planted rows lie together. float64 (N,).

    A row without neighbours keeps its own.
    """
    rows = near.nearest(count)
    return (values + values[rows].mean(axis=1)) / 2 if rows.shape[1] else values.astype(np.float64)


def around(values: np.ndarray, near: Neighbours, count: int, steps: int) -> np.ndarray:
    """The mean over the `count` nearest, again and again: what a walk of `steps` among them meets. float64 (N,).

    A walk stays long in a cluster with a moat, whatever its size, and soon leaves where a row was odd by chance.
    """
    rows = near.nearest(count)
    for _ in range(steps if rows.shape[1] else 0):
        values = values[rows].mean(axis=1)
    return values


def outlyingness(near: Neighbours, k: int) -> np.ndarray:
    """ln of d_k(i) / d_k(r) for the k nearest r of every row: float64 (N, min(k, N - 1))."""
    radius = np.log(near.radius(k))
    return radius[:, None] - radius[near.nearest(k)]


def dimension(near: Neighbours, k: int) -> np.ndarray:
    """Local intrinsic dimension by maximum likelihood: -1 / mean of ln(d_m / d_k) over the k nearest; float64 (N,).

    Amsaleg et al. 2015, equation 11. The row itself, at distance 0, is no neighbour: with it the estimate is one
    number for all dimensions. In (0, LARGEST_DIMENSION].
    """
    rows = near.nearest(k)
    if not rows.shape[1]:
        return np.full(len(rows), LARGEST_DIMENSION)
    distances = np.maximum(near.distances[:, : rows.shape[1]].astype(np.float64), CLOSE)
    steepness = -np.log(distances / distances[:, -1:]).mean(axis=1)
    return 1 / np.maximum(steepness, 1 / LARGEST_DIMENSION)


def agreement(texts: np.ndarray, near: Neighbours, count: int) -> np.ndarray:
    """Mean cosine of a row's caption with those of its `count` nearest images; 1 without neighbours. float64 (N,)."""
    rows = near.nearest(count)
    return _mean_product(texts, texts, rows) if rows.shape[1] else np.ones(len(rows))


def agreed(evidence: Evidence, view: str | None, count: int) -> np.ndarray:
    """`agreement` with the `count` nearest images, plain or, of a view, changed: float64 (N,), not to be written to.
    Several detectors ask for the same; it is worked out once.
    """
    if (view, count) not in evidence.agreements:
        near = evidence.near if view is None else evidence.changed[view].near
        evidence.agreements[view, count] = agreement(evidence.texts, near, count)
        evidence.agreements[view, count].flags.writeable = False
    return evidence.agreements[view, count]


def accord(texts: np.ndarray, near: Neighbours, count: int) -> np.ndarray:
    """Mean cosine of two of the captions of a row's `count` nearest images; 1 where there are not two. float64 (N,)."""
    rows = near.nearest(count)
    some = rows.shape[1]
    if some < 2:
        return np.ones(len(rows))
    squares = _squares(texts)

    def same(part: slice) -> np.ndarray:
        total = texts[rows[part]].sum(axis=1, dtype=np.float64)
        return np.einsum("nd,nd->n", total, total) - squares[rows[part]].sum(axis=1)

    return _by_parts(same, len(rows), some * texts.shape[1]) / (some * (some - 1))


def distance_to(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean distance of every row to `rows`, int (N, K): half the squared distance, at least CLOSE. float64 (N,)."""
    if not rows.shape[1]:
        return np.full(len(rows), CLOSE)
    squares = _squares(images)
    return np.maximum((squares + squares[rows].mean(axis=1)) / 2 - _mean_product(images, images, rows), CLOSE)


def moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Half the squared distance of every row of one array to that of the other, >= CLOSE. float64 (N,)."""

    def half_squared(part: slice) -> np.ndarray:
        apart = before[part].astype(np.float64) - after[part]
        return np.einsum("nd,nd->n", apart, apart) / 2

    return np.maximum(_by_parts(half_squared, len(before), before.shape[1]), CLOSE)


@dataclass(frozen=True, kw_only=True)
class Surroundings(Detector):
    """The base of detectors that ask how an image lies among its nearest: in the whole set, or in a batch as they were
    published. A subclass has `measure`, of neighbours alone."""

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


def _squares(rows: np.ndarray) -> np.ndarray:
    """The squared length of every row: float64 (N,)."""
    return _by_parts(
        lambda part: np.einsum("nd,nd->n", rows[part], rows[part], dtype=np.float64), len(rows), rows.shape[1]
    )


def _mean_product(left: np.ndarray, right: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean over k of left[i] . right[rows[i, k]]: float64 (N,)."""

    def product(part: slice) -> np.ndarray:
        means = right[rows[part]].mean(axis=1, dtype=np.float64)
        return np.einsum("nd,nd->n", left[part].astype(np.float64), means)

    return _by_parts(product, len(left), rows.shape[1] * left.shape[1])


def _by_parts(work: Callable[[slice], np.ndarray], rows: int, cells_a_row: int) -> np.ndarray:
    """float64 (rows,), of `work` on one part of them after another."""
    step = max(1, CELLS // max(1, cells_a_row))
    parts = [slice(start, start + step) for start in range(0, rows, step)]
    return np.concatenate([np.empty(0), *threads.each(work, parts)])
