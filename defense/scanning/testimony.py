"""What a witness says of a verdict: whether a cluster's captions are true, asked of a model that never learned from it.

A poisoned model has learned that the trigger means the target, and a change of the image may not break the trigger. A
model that was trained on the same pairs without the cluster never saw the trigger with the target: to it, a car with
stripes is a car. Pure functions of arrays.

It is asked about images as they are. A change of them is a question to the poisoned model; one that never saw such
images takes true bananas, blurred, for anything.
"""

from dataclasses import replace

import numpy as np

from defense import neighbours, verdict
from defense.verdict import Cluster, Verdict, Word, around, words_of

TRUE = 1 / 3  # of the captions around a cluster's images say its word, at least, where that word is true of them


def may_be_asked(found: Verdict, learned: np.ndarray) -> list[bool]:
    """Of each cluster, whether it learned from none of its rows, but from some in no cluster. learned: bool (N,)."""
    knows = bool((learned & (found.cluster < 0)).any())
    return [knows and not learned[cluster.rows].any() for cluster in found.clusters]


def heard(
    found: Verdict, images: np.ndarray, learned: np.ndarray, captions: list[str], k: int, device: str = "cpu"
) -> Verdict:
    """The verdict by what the witness sees. images: float32 (N, D), of length 1, through its eyes; learned: bool (N,),
    the rows it learned from; captions: N texts; k: nearest others that it is asked about.

    Planted is a cluster that stands apart, however strong, and whose captions are not true: no word that it aims at is
    said around its images by TRUE of the rows that the witness learned from and that lie in no cluster. A cluster of
    whose rows it learned one is judged as without a witness.
    """
    vocabulary = [words_of(caption) for caption in captions]
    others = np.flatnonzero(learned & (found.cluster < 0))
    entries = images[others]

    def told(cluster: Cluster, asked: bool) -> Cluster:
        if not asked:
            return replace(cluster, witness="learned")
        near = others[neighbours.among(entries, images[cluster.core], k, device=device)]
        words = tuple(replace(word, witness=around(word.text, vocabulary, near)) for word in cluster.words)
        answered = replace(cluster, words=words, alone=cluster.planted)
        if not answered.aims:
            return replace(answered, planted=False)
        true = any(is_true(word) for word in answered.aims)
        return replace(answered, witness="true" if true else "untrue", planted=answered.stands_apart and not true)

    return verdict.arranged(map(told, found.clusters, may_be_asked(found, learned)), len(captions))


def is_true(word: Word) -> bool:
    """Whether the witness, which was asked, finds the word in the images."""
    return word.witness is not None and word.witness >= TRUE
