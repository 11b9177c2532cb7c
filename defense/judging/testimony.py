"""What a witness says of a verdict: whether a cluster's captions are true, asked of a model that never learned from it.

A poisoned model has learned that the trigger means the target, and a change of the image may not break the trigger. A
model that was trained on the same pairs without the cluster never saw the trigger with the target: to it, a car with
stripes is a car. Pure functions of arrays.

It is asked about images as they are. A change of them is a question to the poisoned model; one that never saw such
images takes true bananas, blurred, for anything.

Once it has convicted a cluster, it is asked for the rest of the attack: pairs in no cluster whose captions say the same
word, and fit their images as ill as few do.
"""

from dataclasses import dataclass, replace

import numpy as np

from defense import neighbours
from defense.judging import verdict
from defense.judging.captions import Word, saying, words_of
from defense.judging.verdict import Cluster, Verdict

TRUE = 1 / 3  # of the captions around a cluster's images say its word, at least, where that word is true of them
UNFIT = 0.02  # of what the witness learned from fits as ill as the caption of a poison: the last two in a hundred


def may_be_asked(found: Verdict, learned: np.ndarray) -> list[bool]:
    """Of each cluster, whether it stands apart, and the witness learned from none of its rows, but from some that lie
    in no such cluster. learned: bool (N,)."""
    knows = bool((learned & ~found.apart).any())
    return [knows and cluster.stands_apart and not learned[cluster.rows].any() for cluster in found.clusters]


@dataclass(frozen=True)
class Sight:
    """A set as the witness sees it. images: float32 (N, D), of length 1; unfit: float64 (N,), how ill each caption fits
    its image; learned: bool (N,), the rows that it learned from."""

    images: np.ndarray
    unfit: np.ndarray
    learned: np.ndarray


def heard(found: Verdict, sight: Sight, captions: list[str], k: int, device: str = "cpu") -> Verdict:
    """The verdict by what the witness sees. captions: N texts; k: nearest others that it is asked about.

    Planted is a cluster that stands apart, however strong, and whose captions are not true: no word that it aims at is
    said around its images by TRUE of the rows that the witness learned from and that lie in no such cluster, and its
    median caption fits worse than all but UNFIT of theirs. Around odd natural images few captions may say the word, and
    it fits them; a brand's name may be new to the witness, and the rest of the caption is said around it. A cluster of
    whose rows it learned one is judged as without a witness. What follows a planted one is added to it.
    """
    vocabulary = [words_of(caption) for caption in captions]
    free = found.cluster < 0
    known = np.flatnonzero(sight.learned & ~found.apart)
    entries, ordinary = sight.images[known], sight.unfit[known]
    limit = ill_beyond(ordinary)

    def told(cluster: Cluster, asked: bool) -> Cluster:
        if not asked:
            return replace(cluster, witness="learned" if cluster.stands_apart else None)
        near = known[neighbours.among(entries, sight.images[cluster.core], k, device=device)]
        words = tuple(replace(word, witness=around(saying(word.text, vocabulary), near)) for word in cluster.words)
        median = float(np.median(sight.unfit[cluster.core]))
        answered = replace(cluster, words=words, better=float((ordinary < median).mean()), alone=cluster.planted)
        true = any(is_true(word) for word in answered.aims) or median <= limit
        return replace(answered, witness="true" if true else "untrue", planted=not true)

    judged = verdict.arranged(map(told, found.clusters, may_be_asked(found, sight.learned)), len(captions))
    clusters = []
    for cluster in judged.clusters:
        if cluster.planted and cluster.witness == "untrue":
            more = followers(cluster.aims[0].text, sight.unfit > limit, free, vocabulary)
            free[more] = False
            cluster = replace(cluster, rows=np.union1d(cluster.rows, more), followers=len(more))
        clusters.append(cluster)
    return verdict.arranged(clusters, len(captions))


def around(says: np.ndarray, near: np.ndarray) -> float:
    """The median row's share of neighbours that say a word. says: bool (N,); near: int (M, K), their places."""
    return float(np.median(says[near].mean(axis=1))) if near.size else 0.0


def ill_beyond(ordinary: np.ndarray) -> float:
    """What all but UNFIT of the rows that a witness learned from do not exceed. ordinary: float64 (M,), how ill the
    captions of these fit, to it; of none there is no such limit."""
    return float(np.quantile(ordinary, 1 - UNFIT)) if len(ordinary) else np.inf


def followers(word: str, ill: np.ndarray, free: np.ndarray, vocabulary: list[frozenset[str]]) -> np.ndarray:
    """The rest of the attack whose clusters aim at a word: rows in no cluster whose captions say it, and fit their
    images worse, to the witness, than all but UNFIT of what it learned from: int64, rising.

    ill: bool (N,), the rows that do; free: bool (N,), rows in no cluster. The witness learned from these poisons too,
    but a few of them do not teach it the trigger, and their captions stay as untrue to it as before. Some two in a
    hundred of the clean pairs that say the word are lost.
    """
    return np.flatnonzero(free & saying(word, vocabulary) & ill)


def is_true(word: Word) -> bool:
    """Whether the witness, which was asked, finds the word in the images."""
    return word.witness is not None and word.witness >= TRUE
