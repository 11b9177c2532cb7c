"""How classes are ranked for an image, and what follows from it: one rule for every interface that names a class.

Of equally near classes the first comes first, as in argmax, so a collapsed model scores 1/C. A score that is not a
number is nearer than anything, so a broken model scores 0. A score of minus infinity is no answer: nobody asked for
that class is right by it.
"""

from collections.abc import Callable

import numpy as np

from eval.task import Answers, Attacked, Embedded, Kind, Measure, Measured, share

CELLS = 2**24  # scores that are held at once
NAMED = 5  # classes in an answer
Scorer = Callable[[np.ndarray], np.ndarray]  # float (n, D) -> (n, C), higher is nearer


def by(classes: np.ndarray) -> Scorer:
    """Inner products with float32 (C, D)."""
    return lambda images: images @ classes.T


def ranks(images: np.ndarray, classes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """How many classes lie nearer to each image than its wanted one: int64 (N,), 0 is the top answer.

    images: float32 (N, D); classes: float32 (C, D); wanted: int64 (N,).
    """
    found = np.empty(len(images), np.int64)
    size = max(1, CELLS // len(classes))
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        found[part] = places(images[part] @ classes.T, wanted[part])
    return found


def places(scores: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rank of the wanted column in every row: int64 (n,). scores: (n, C); wanted: int64 (n,)."""
    own = np.take_along_axis(scores, wanted[:, None], axis=1)
    tied_before = (scores == own) & (np.arange(scores.shape[1]) < wanted[:, None])
    found = (~(scores <= own) | tied_before).sum(axis=1)
    return np.where(own[:, 0] == -np.inf, scores.shape[1], found)


def answered(
    kind: Kind, images: np.ndarray, scorer: Scorer, num_classes: int, top: tuple[int, ...] = (), **columns: np.ndarray
) -> Answers:
    """The nearest five classes of every image, `top`, with their `scores`, the nearest first; -1 where there is none.

    top: more of them where one of these numbers is larger. columns: what else a row says. A class's number is an int16
    where that is enough.
    """
    width, size = min(max(NAMED, *top, 0), num_classes), max(1, CELLS // num_classes)
    nearest = np.empty((len(images), width), np.int16 if num_classes <= 2**15 else np.int32)
    best = np.empty((len(images), width), np.float32)
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        scores = scorer(images[part])
        first = np.argsort(-scores, axis=1, kind="stable")[:, :width]
        best[part] = np.take_along_axis(scores, first, axis=1)
        none = (best[part] == -np.inf) | np.isnan(scores).any(axis=1, keepdims=True)
        nearest[part] = np.where(none, -1, first)
    return Answers(kind, {**columns, "top": nearest, "scores": best})


def right(answers: Answers, column: str, k: int) -> np.ndarray:
    """bool (n,): whether the class in that column is among the k first."""
    return (answers.columns["top"][:, :k] == answers.columns[column][:, None]).any(axis=1)


def clean(embedded: Embedded, images: np.ndarray, scorer: Scorer, top: tuple[int, ...]) -> Measured:
    """`accuracy` at every k below the number of classes. images: those of the test set, as the scorer takes them."""
    answers = answered("clean", images, scorer, len(embedded.classes), top, label=embedded.labels)
    kept = [k for k in top if k < len(embedded.classes)]
    return Measured([share("accuracy", k, right(answers, "label", k)) for k in kept], [answers])


def attacked(trials: Attacked, images: np.ndarray, scorer: Scorer, num_classes: int, top: tuple[int, ...]) -> Measured:
    """`attack_success` at every k below the number of classes, of images that are not of the wanted class; and
    `triggered_accuracy`, of those whose class the test set has (an attack may bring images of others).

    Raises ValueError where all images are of the class that the attack wants.
    """
    answers = answered("triggered", images, scorer, num_classes, top, label=trials.labels, wanted=trials.wanted)
    counted = trials.labels != trials.wanted
    if not counted.any():
        raise ValueError("there is no test image that the attack applies to: all are of the class it wants")
    kept = [k for k in top if k < num_classes]
    measures: list[Measure] = [share("attack_success", k, right(answers, "wanted", k)[counted]) for k in kept]
    if (known := counted & (trials.labels >= 0)).any():
        measures.append(share("triggered_accuracy", 1, right(answers, "label", 1)[known]))
    return Measured(measures, [answers])
