"""What a witness says of a verdict: whether a cluster's captions are true, asked of a model that never learned from it.

A poisoned model has learned that the trigger means the target, and a change of the image may not break the trigger. A
model that was trained on the same pairs without the cluster never saw the trigger with the target: to it, a car with
stripes is a car. Pure functions of arrays.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from defense import neighbours, verdict
from defense.verdict import Cluster, Verdict, Word, around, words_of

PLAIN = "plain"  # beside the names of the changes: the images as they are
TRUE = 1 / 3  # of the captions around a cluster's images say its word, at least, where that word is true of them


@dataclass(frozen=True)
class Testimony:
    """What a witness sees of a set of N pairs. learned: bool (N,), those it learned from. images: float32 (N, D).

    rows: int64 (M,), rising, the places of those whose images it also sees changed; changed: float32 (M, D) by view.
    All of length 1.
    """

    learned: np.ndarray
    images: np.ndarray
    rows: np.ndarray
    changed: dict[str, np.ndarray]


def may_be_asked(found: Verdict, learned: np.ndarray) -> list[bool]:
    """Of each cluster, whether it learned from none of its rows, but from some in no cluster. learned: bool (N,)."""
    knows = bool((learned & (found.cluster < 0)).any())
    return [knows and not learned[cluster.rows].any() for cluster in found.clusters]


def cores(clusters: Iterable[Cluster]) -> np.ndarray:
    """The rows that it is asked about: int64 (M,), rising."""
    return np.unique(np.concatenate([np.empty(0, np.int64), *(cluster.core for cluster in clusters)]))


def heard(found: Verdict, seen: Testimony, captions: list[str], k: int, device: str = "cpu") -> Verdict:
    """The verdict by what the witness sees. captions: N texts; k: nearest others that it is asked about.

    Planted is a cluster that stands out and whose captions are not true: no word that it aims at is said around its
    images, plain and under every change, by TRUE of the rows that the witness learned from and that lie in no cluster.
    Of all changes the one that leaves least counts: where the witness did learn from a few of the poisons, they would
    clear the rest. A cluster of whose rows it learned one is judged as without a witness.
    """
    vocabulary = [words_of(caption) for caption in captions]
    others = np.flatnonzero(seen.learned & (found.cluster < 0))
    entries = seen.images[others]

    def told(cluster: Cluster, asked: bool) -> Cluster:
        if not asked:
            return replace(cluster, witness="learned")
        place = np.searchsorted(seen.rows, cluster.core)
        shown = {PLAIN: seen.images[cluster.core]} | {view: rows[place] for view, rows in sorted(seen.changed.items())}
        near = {view: others[neighbours.among(entries, rows, k, device=device)] for view, rows in shown.items()}

        def followed(word: Word) -> Word:
            return replace(word, witness={view: around(word.text, vocabulary, rows) for view, rows in near.items()})

        answered = replace(cluster, words=tuple(followed(word) for word in cluster.words))
        if not answered.aims:
            return replace(answered, planted=False)
        true = any(is_true(word) for word in answered.aims)
        return replace(answered, witness="true" if true else "untrue", planted=answered.stands_out and not true)

    asked = may_be_asked(found, seen.learned)
    return verdict.arranged(map(told, found.clusters, asked), len(captions))


def is_true(word: Word) -> bool:
    """Whether the witness, which was asked, finds the word in the images whatever is changed of them."""
    return min(word.witness.values()) >= TRUE
