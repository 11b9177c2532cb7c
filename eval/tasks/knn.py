"""Nearest neighbours: the image tower alone, read by the clean labelled images nearest to an image (Wu et al. 2018).

Each of the k neighbours votes for its class with exp(cosine / temperature), as DINO's evaluation has it. Metrics as of
zero-shot: `accuracy` clean, `attack_success` and `triggered_accuracy` under an attack.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval import answering
from eval.task import Embedded, Labelled, Measured, Task


@dataclass(frozen=True, kw_only=True)
class KNN(Task):
    """Classes that no neighbour is of are no answer."""

    under_attack: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    top: tuple[int, ...] = (1, 5)
    neighbours: int = 20
    temperature: float = 0.07

    def measure(self, embedded: Embedded) -> Measured:
        train, trials, num = embedded.train, embedded.attacked, len(embedded.classes)
        assert train is not None
        order = np.argsort(train.names, kind="stable")  # of equally near ones the lowest name comes first
        known = Labelled(train.images[order], train.labels[order], train.names[order])

        def scorer(images: np.ndarray) -> np.ndarray:
            return self.votes(images, known, num)

        if trials is None:
            return answering.clean(embedded, embedded.features(embedded.images), scorer, self.top)
        return answering.attacked(trials, embedded.features(trials.images), scorer, num, self.top)

    def votes(self, images: np.ndarray, train: Labelled, num_classes: int) -> np.ndarray:
        """float64 (n, C): the weight of each class's votes; minus infinity without one. images: float32 (n, D)."""
        votes = np.zeros((len(images), num_classes))
        size = max(1, answering.CELLS // len(train.images))
        for start in range(0, len(images), size):
            near = images[start : start + size] @ train.images.T
            which = nearest(near, min(self.neighbours, len(train.images)))
            cosine = np.take_along_axis(near, which, axis=1).astype(np.float64)
            rows = np.arange(start, start + len(near))[:, None].repeat(which.shape[1], axis=1)
            np.add.at(votes, (rows, train.labels[which]), np.exp((cosine - 1) / self.temperature))
        return np.where(votes > 0, votes, -np.inf)


def nearest(similarity: np.ndarray, k: int) -> np.ndarray:
    """The columns of the k largest in each row, in the order of columns; of equal ones the first: int64 (n, k)."""
    least = -np.partition(-similarity, k - 1, axis=1)[:, k - 1, None]
    above, level = similarity > least, similarity == least
    left = k - above.sum(axis=1, keepdims=True)
    taken = above | (level & (np.cumsum(level, axis=1) <= left))
    assert (taken.sum(axis=1) == k).all(), "similarities that are not numbers"
    return np.nonzero(taken)[1].reshape(len(similarity), k)
