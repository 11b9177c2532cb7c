"""From suspicion to a verdict: what the clusters of suspicious rows share, and which to remove.

Pure functions of the arrays of a scan. To be removed is a cluster that looks planted, and nothing else: suspicious rows
that lie together, share a word with captions elsewhere, and lose their captions' agreement when images are changed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from defense.detector import Evidence, Neighbours
from defense.detectors.panel import Panel
from defense.judging import clustering
from defense.judging.captions import Word, common_words, saying, words_of
from defense.judging.clustering import LINKS

SUSPICIOUS = 10.0  # of the panel's score; no row of a clean book of seed 100 reached it
STRONG = 90.0  # mean score of a cluster's core times the root of its size; one of clean fish beside poisons had 70
MOAT = 2.0  # times its core, at most, that a planted cluster grows: around a natural one there is no moat to stop at
ELSEWHERE = 1.0  # captions with that word outside the cluster, in sizes of the cluster
LOST = 0.3  # agreement of captions that the cluster's median row loses under some change
SUSPECT = 0.1  # of all rows, the most suspicious: there lies what belongs to a cluster and was not in it
OUT = 0.5  # of the neighbours of changed images lie outside their cluster, where a change is asked whether a word stays
TOLD = 2.0  # times as many captions as anywhere, and LEAST of all, say a word around images of which it is told:
LEAST = 1 / 8  # "by" is told of none


@dataclass(frozen=True)
class Cluster:
    """Suspicious rows that lie together. rows: int64, their places, rising: its core, the rows that are suspicious by
    themselves, and of those that lie among them the ones that say one of its words, all if it has none. core: of these
    rows those. reached: how many rows it grows to. words: shared by most captions of the core, the most telling first.
    strength: mean score of the core times the root of its size. lost: the core's median agreement lost, by view.
    keyhole: the view of a part through which it lies together; None: it does as whole images.
    witness: whether one finds its captions true or untrue, or "learned" where it learned from one of its rows and is
    not asked; None: no witness, or it does not stand apart. better: of what the witness learned from, the share whose
    captions fit better than the core's median one. alone: what the run alone said, where one was asked. followers: how
    many of the rows a witness added. planted: whether it is to be removed.
    """

    rows: np.ndarray
    core: np.ndarray
    reached: int
    words: tuple[Word, ...]
    strength: float
    lost: dict[str, float]
    keyhole: str | None = None
    witness: Literal["true", "untrue", "learned"] | None = None
    better: float | None = None
    alone: bool | None = None
    followers: int = 0
    kin: int = 0
    planted: bool = False

    @property
    def aims(self) -> tuple[Word, ...]:
        """Words that captions outside have too, at least as many as it grows to: a target; a logo's own is none."""
        return tuple(word for word in self.words if word.elsewhere >= ELSEWHERE * self.reached)

    @property
    def stands_apart(self) -> bool:
        """Whether it has a MOAT and an aim: what is asked of a planted one by whatever evidence."""
        return self.reached <= MOAT * len(self.core) and len(self.aims) > 0


@dataclass(frozen=True)
class Verdict:
    """clusters: the planted first, then by strength. cluster: int32 (N,), a row's place among them, -1 for none.
    proposed: bool (N,), the rows of planted ones.
    """

    clusters: tuple[Cluster, ...]
    cluster: np.ndarray
    proposed: np.ndarray

    @property
    def apart(self) -> np.ndarray:
        """Rows of clusters that stand apart, those that may be planted: bool (N,)."""
        return np.isin(self.cluster, [number for number, each in enumerate(self.clusters) if each.stands_apart])


def judge(panel: Panel, scores: np.ndarray, evidence: Evidence, captions: list[str]) -> Verdict:
    """What to say of a set, and what to remove of it. scores: float64 (N,), `panel.score(evidence)`. captions: N texts.

    Planted is a cluster that is STRONG, has a MOAT, whose core shares a word that captions outside have too, at least
    as many as it grows to (a target; a logo's own word is none), whose median row loses LOST of its agreement under
    some change (near-duplicates lose none), and whose captions are not true: no such word STAYS under every change (of
    apples with a logo, changed images fall among apples, as those of other apples do). Clean rows that lie among
    poisons look as they do to the model, and say something else: neither do they hide a word that the core shares, nor
    are they removed.
    """
    vocabulary = [words_of(caption) for caption in captions]
    everywhere = Counter(word for words in vocabulary for word in words)
    suspicious = scores >= SUSPICIOUS
    cores = clustering.cores(suspicious, evidence, panel.keyholes, vocabulary, everywhere)

    found = []
    for core, reached, keyhole in cores:
        beside = np.setdiff1d(reached, core)
        inside, others = ([vocabulary[row] for row in rows] for rows in (core, beside))
        words = common_words(inside, everywhere, len(captions), others)
        shared = {word.text for word in words}
        belongs = [not shared or not shared.isdisjoint(said) for said in others]
        rows = np.union1d(core, beside[np.array(belongs, bool)])
        losses = {view: float(np.median(lost)) for view, lost in panel.lost(evidence, core).items()}
        strength = float(scores[core].mean() * np.sqrt(len(core)))
        found.append(Cluster(rows, core, len(reached), words, strength, losses, keyhole))
    ordinary = ~arranged(found, len(scores)).apart
    near = {view: evidence.changed[view].near.nearest(panel.k) for view in panel.changes}

    def judged(cluster: Cluster) -> Cluster:
        words = tuple(followed(word, cluster, near, vocabulary, ordinary) for word in cluster.words)
        asked = replace(cluster, words=words)
        return replace(asked, planted=planted(asked))

    return arranged(map(judged, found), len(scores))


def followed(
    word: Word, cluster: Cluster, near: dict[str, np.ndarray], vocabulary: list[frozenset[str]], ordinary: np.ndarray
) -> Word:
    """A word of a cluster, with what is said around its changed images and around those of others that say it.

    near: by view, int (N, K), the nearest to each changed image; ordinary: bool (N,), rows of which there may be
    others: they lie in no cluster that stands apart. A trigger that a change blurs keeps its images among the plain
    ones of its cluster, which say the word because they are poisons: only the captions outside can tell.
    """
    says = saying(word.text, vocabulary)
    others = np.flatnonzero(says & ordinary)
    rate = len(others) / max(1, int(ordinary.sum()))
    outside = np.ones(len(says), bool)
    outside[cluster.rows] = False
    stays, usual = {}, {}
    for view, rows in near.items():
        share = told_of(says, rows[others], outside)
        if outside[rows[cluster.core]].mean() >= OUT and share >= max(LEAST, TOLD * rate):
            stays[view], usual[view] = told_of(says, rows[cluster.core], outside), share
    return replace(word, stays=stays, usual=usual)


def told_of(says: np.ndarray, near: np.ndarray, outside: np.ndarray) -> float:
    """How many neighbours say a word, of those outside. says, outside: bool (N,); near: int (M, K), their places."""
    counted = outside[near]
    return float((says[near] & counted).sum() / max(1, counted.sum()))


def planted(cluster: Cluster) -> bool:
    """What the poisoned run alone can say of it."""
    return (
        cluster.stands_apart
        and cluster.strength >= STRONG
        and max(cluster.lost.values(), default=0.0) >= LOST
        and not any(word.remains for word in cluster.aims)
    )


def arranged(clusters: Iterable[Cluster], count: int) -> Verdict:
    """The verdict of these clusters of a set of `count` rows."""
    found = sorted(clusters, key=lambda cluster: (not cluster.planted, -cluster.strength, cluster.rows[0]))
    cluster = np.full(count, -1, np.int32)
    for number, each in enumerate(found):
        cluster[each.rows] = number
    planted_ones = [number for number, each in enumerate(found) if each.planted]
    return Verdict(tuple(found), cluster, np.isin(cluster, planted_ones))


def with_kin(found: Verdict, scores: np.ndarray, evidence: Evidence, captions: list[str]) -> Verdict:
    """The verdict, its planted clusters with their kin: rows in no cluster that belong to one, though they are not
    suspicious enough to begin it. scores: float64 (N,). captions: N texts.

    One training is surer of a trigger than the next, and of the poisons of a colour filter half were found suspicious
    where the captions of all were as untrue. Nothing is planted by its kin: a set of which nothing is, loses nothing.
    """
    vocabulary = [words_of(caption) for caption in captions]
    most, free = suspected(scores), found.cluster < 0
    clusters = []
    for cluster in found.clusters:
        if cluster.planted:
            says = free & saying(cluster.aims[0].text, vocabulary)
            near = evidence.changed[cluster.keyhole].near if cluster.keyhole else evidence.near
            more = kin(cluster.rows, says, most, near)
            free[more] = False
            cluster = replace(cluster, rows=np.union1d(cluster.rows, more), kin=len(more))
        clusters.append(cluster)
    return arranged(clusters, len(scores))


def kin(rows: np.ndarray, says: np.ndarray, most: np.ndarray, near: Neighbours) -> np.ndarray:
    """What belongs to a cluster of these rows, int64 (M,): of those that say its word the ones among the `most`
    suspicious that are joined to it, and then those that lie among them all. says, most: bool (N,). int64, rising.
    """
    inside = np.zeros(len(says), bool)
    inside[rows] = True
    labels = clustering.components(inside | (says & most), near, LINKS)
    joined = np.isin(labels, labels[rows])
    among = clustering.grown(np.where(joined, 0, -1), near, LINKS) >= 0
    return np.flatnonzero(says & among & ~inside)


def suspects(found: Verdict, scores: np.ndarray, captions: list[str]) -> np.ndarray:
    """What a witness is not to learn from: bool (N,). All clusters that stand apart, planted or not; and of the most
    suspicious tenth, by `scores`, float64 (N,), the rows whose captions say a word they aim at: of a strong trigger a
    few poisons that lie in no cluster suffice to teach it, and the few clean rows among them cost nothing.
    """
    words = {word.text for cluster in found.clusters if cluster.stands_apart for word in cluster.aims}
    chosen = found.apart
    chosen[
        [row for row in np.flatnonzero(suspected(scores)).tolist() if not words.isdisjoint(words_of(captions[row]))]
    ] = True
    return chosen


def suspected(scores: np.ndarray) -> np.ndarray:
    """The most suspicious tenth, without rows of which nothing was seen: bool (N,). scores: float64 (N,)."""
    return top(scores, round(SUSPECT * len(scores))) & (scores > 0)


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """bool (N,): the `count` highest scores, of equal ones the first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen
