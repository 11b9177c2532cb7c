"""What a task is: a pure function from embedded arrays to numbers. It knows no model, no file, no device.

A subclass is one file in `eval/tasks/`, a frozen dataclass whose fields are its knobs.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.interval import clopper_pearson

CHUNK = 4096


@dataclass(frozen=True)
class Attacked:
    """The trials of one attack. images: float32 (M, D) of the images as the attack shows them; labels: int64 (M,)
    their true classes, -1 where the test set has no such class; wanted: int64 (M,) the classes the attacker wants;
    classes: float32 (C, D) under its prompts.
    """

    images: np.ndarray
    labels: np.ndarray
    wanted: np.ndarray
    classes: np.ndarray


@dataclass(frozen=True)
class Embedded:
    """A test set as one model sees it, all rows L2-normalised. images: float32 (N, D); labels: int64 (N,);
    classes: float32 (C, D), one embedding a class, its prompts averaged; attacked: None where no attack is measured.

    Of a classifier an image is its raw embedding and a 1, a class its row of weights and its bias, neither normalised.
    So a task takes inner products of the two, as `ranks` does, and reads nothing else into them.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    attacked: Attacked | None = None


@dataclass(frozen=True)
class Measure:
    """One number: `value` of `metric` at `k`, over `n` trials, with its 95% interval where it is a share."""

    metric: str
    k: int | None
    value: float
    n: int
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Task:
    """The base of all tasks. `under_attack`: it needs `Embedded.attacked`, and is measured once for every attack."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("eval.tasks",)
    under_attack: ClassVar[bool] = False

    def measure(self, embedded: Embedded) -> list[Measure]:
        """Pure. Raises ValueError where the test set has nothing to measure."""
        raise NotImplementedError


def share(metric: str, k: int | None, hits: np.ndarray) -> Measure:
    """The share of True in `hits`, bool (n,), n > 0."""
    count, n = int(hits.sum()), len(hits)
    return Measure(metric, k, count / n, n, *clopper_pearson(count, n))


def ranks(images: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many classes lie nearer to each image than its wanted one: int64 (N,), 0 is the top answer.

    images: float32 (N, D); classes: float32 (C, D); wanted: int64 (N,). Of equally near classes the first comes first,
    as in argmax, so a collapsed model scores 1/C; NaN is nearer than anything, so a broken one scores 0.
    """
    found = np.empty(len(images), np.int64)
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        scores = images[part] @ classes.T
        own = np.take_along_axis(scores, wanted[part, None], axis=1)
        tied_before = (scores == own) & (np.arange(len(classes)) < wanted[part, None])
        found[part] = (~(scores <= own) | tied_before).sum(axis=1)
    return found
