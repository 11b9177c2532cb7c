"""From suspicion to a verdict: which suspicious rows belong together, what they share, and which to remove.

Pure functions of the arrays of a scan. To be removed is a cluster that looks planted, and nothing else: suspicious rows
that lie together, share a word with captions elsewhere, and lose their captions' agreement when images are changed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from defense.detector import Evidence, Neighbours
from defense.detectors.panel import Panel

SUSPICIOUS = 10.0  # of the panel's score; no row of a clean book of seed 100 reached it
STRONG = 90.0  # mean score of a cluster's core times the root of its size; one of clean fish beside poisons had 70
MOAT = 2.0  # times its core, at most, that a planted cluster grows: around a natural one there is no moat to stop at
LINKS = 8  # nearest images over which suspicious rows are joined
SMALLEST = 8  # rows of a cluster
SHARED = 0.8  # of its core's captions have a cluster's word; of all it grows to, clean rows among them, fewer may
MOST = 0.5  # of suspicious rows that are joined say the word by which they are parted, where none is shared
RARE = 0.25  # of the captions outside at most: a word that more of them have says nothing
ELSEWHERE = 1.0  # captions with that word outside the cluster, in sizes of the cluster
LOST = 0.3  # agreement of captions that the cluster's median row loses under some change
SUSPECT = 0.1  # of all rows, the most suspicious, no witness learns from those that say the word of a cluster
STAYS = 0.5  # of what is said around others': a true word, around changed images; brands keep 0.77 to 0.91
OUT = 0.5  # of the neighbours of changed images lie outside their cluster, where a change is asked whether a word stays
TOLD = 2.0  # times as many captions as anywhere, and LEAST of all, say a word around images of which it is told:
LEAST = 1 / 8  # "by" is told of none
PRIOR = 0.5  # captions added to every count, so that odds are finite
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Word:
    """What the captions of a cluster's core have in common. share: of these that have it; elsewhere: how many captions
    outside have it, rows that the cluster only grew to aside; odds: the logarithm of its odds in the core over those
    outside; stays: of the nearest to the changed images of the core, how many say it, those that are of the cluster
    aside, by each view that takes most of these images OUT of it and leaves the word TOLD; usual: the same of other
    rows that say it; witness: of the nearest to the plain images by a witness (defense.scanning.testimony), of the
    median one, None where none was asked.
    """

    text: str
    share: float
    elsewhere: int
    odds: float
    stays: dict[str, float] = field(default_factory=dict)
    usual: dict[str, float] = field(default_factory=dict)
    witness: float | None = None

    @property
    def remains(self) -> bool:
        """Whether it STAYS around the changed images as it does around others of which it is told: a car with a
        trigger is no banana any more, and apples with a logo are apples, as far as changed apples are."""
        kept = [self.stays[view] / usual for view, usual in self.usual.items()]
        return min(kept, default=0.0) >= STAYS


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
    labels = components(scores >= SUSPICIOUS, evidence.near, LINKS)
    for joined in members(labels):
        labels[joined] = -1
        for core in parted(joined, evidence.near, vocabulary, everywhere):
            labels[core] = core[0] if len(core) >= SMALLEST else -1
    whole = grown(labels, evidence.near, LINKS)
    cores: list[tuple[np.ndarray, np.ndarray, str | None]] = [
        (core, reached, None) for core, reached in zip(members(labels), members(whole), strict=True)
    ]
    cores += through(panel, (scores >= SUSPICIOUS) & (whole < 0), whole >= 0, evidence, vocabulary, everywhere)

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


def suspects(found: Verdict, scores: np.ndarray, captions: list[str]) -> np.ndarray:
    """What a witness is not to learn from: bool (N,). All clusters that stand apart, planted or not; and of the most
    suspicious tenth, by `scores`, float64 (N,), the rows whose captions say a word they aim at: of a strong trigger a
    few poisons that lie in no cluster suffice to teach it, and the few clean rows among them cost nothing.
    """
    words = {word.text for cluster in found.clusters if cluster.stands_apart for word in cluster.aims}
    most = np.flatnonzero(top(scores, round(SUSPECT * len(scores))))
    chosen = found.apart
    chosen[[row for row in most.tolist() if not words.isdisjoint(words_of(captions[row]))]] = True
    return chosen


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """bool (N,): the `count` highest scores, of equal ones the first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen


def saying(word: str, vocabulary: list[frozenset[str]]) -> np.ndarray:
    """Which captions have the word: bool (N,)."""
    return np.array([word in words for words in vocabulary], bool)


def through(
    panel: Panel,
    left: np.ndarray,
    taken: np.ndarray,
    evidence: Evidence,
    vocabulary: list[frozenset[str]],
    everywhere: Counter[str],
) -> list[tuple[np.ndarray, np.ndarray, str | None]]:
    """Of suspicious rows that lie in no cluster as whole images, those that lie together through a keyhole, first that
    through which most do: the core and what it grows to, int64 rising, and the keyhole.

    left: bool (N,), these rows; taken: bool (N,), rows of other clusters, to which none grows. Poisons of a learned
    patch look alike in nothing but the patch.
    """
    found: list[tuple[np.ndarray, np.ndarray, str | None]] = []
    left, taken = left.copy(), taken.copy()
    while left.any() and panel.keyholes:
        near = {view: evidence.changed[view].near for view in panel.keyholes}
        largest = {view: max(members(components(left, one, LINKS)), key=len) for view, one in near.items()}
        view = max(panel.keyholes, key=lambda view: len(largest[view]))
        if len(largest[view]) < SMALLEST:
            break
        left[largest[view]] = False
        for part in parted(largest[view], near[view], vocabulary, everywhere):
            core = part[~taken[part]]  # the part before may have grown to some of it
            if len(core) >= SMALLEST:
                labels = np.full(len(left), -1)
                labels[core] = core[0]
                reached = np.flatnonzero((grown(labels, near[view], LINKS) >= 0) & ~taken)
                taken[reached] = True
                left &= ~taken
                found.append((core, reached, view))
    return found


def components(chosen: np.ndarray, near: Neighbours, count: int) -> np.ndarray:
    """Connected components of the chosen rows, bool (N,), each joined to its `count` nearest where they are chosen too.

    int64 (N,): the lowest place in a row's component, -1 for rows that are not chosen.
    """
    rows = near.nearest(count)
    left = np.flatnonzero(chosen).repeat(rows.shape[1])
    right = rows[chosen].ravel()
    left, right = left[chosen[right]], right[chosen[right]]
    labels = np.arange(len(chosen))
    while True:
        lower = np.minimum(labels[left], labels[right])
        updated = labels.copy()
        np.minimum.at(updated, left, lower)
        np.minimum.at(updated, right, lower)
        updated = updated[updated]
        if (updated == labels).all():
            return np.where(chosen, labels, -1)
        labels = updated


def parted(
    joined: np.ndarray, near: Neighbours, vocabulary: list[frozenset[str]], everywhere: Counter[str]
) -> list[np.ndarray]:
    """Suspicious rows, int64 (M,) rising, that share no word although MOST say one: those that say it or lie among
    them, and the rest, parted again. One row between poisons and clean fish is enough to join the two.
    """
    words = common_words([vocabulary[row] for row in joined], everywhere, len(vocabulary), least=MOST)
    if not words or max(word.share for word in words) >= SHARED:
        return [joined]
    say = np.array([words[0].text in vocabulary[row] for row in joined])
    among = np.isin(near.nearest(LINKS)[joined], joined[say]).mean(axis=1) >= 0.5
    rest = joined[~(say | among)]
    return [joined[say | among], *(parted(rest, near, vocabulary, everywhere) if len(rest) else ())]


def grown(labels: np.ndarray, near: Neighbours, count: int) -> np.ndarray:
    """Clusters with every row besides that has half of its `count` nearest in one of them, until there is none.

    labels: int64 (N,), -1 for rows in no cluster; so is what is returned. A poison that looks less suspicious than
    others still lies among them.
    """
    rows = near.nearest(count)
    if not rows.shape[1]:  # one pair alone
        return labels
    half = (rows.shape[1] + 1) // 2
    while True:
        around = np.sort(labels[rows], axis=1)
        more = labels.copy()
        for first in reversed(range(rows.shape[1] - half + 1)):
            some = (labels < 0) & (around[:, first] >= 0) & (around[:, first] == around[:, first + half - 1])
            more[some] = around[some, first]
        if (more == labels).all():
            return more
        labels = more


def members(labels: np.ndarray) -> list[np.ndarray]:
    """The places of every cluster, rising, by its label."""
    chosen = np.flatnonzero(labels >= 0)
    order = chosen[np.argsort(labels[chosen], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []


def words_of(caption: str) -> frozenset[str]:
    """The words of a caption, in small letters."""
    return frozenset(WORD.findall(caption.lower()))


def common_words(
    inside: list[frozenset[str]],
    everywhere: Counter[str],
    count: int,
    beside: Sequence[frozenset[str]] = (),
    least: float = SHARED,
) -> tuple[Word, ...]:
    """Words in at least `least` of the captions `inside` and at most RARE of those outside; the most telling first.

    everywhere: captions with a word among all `count`, those inside included; beside: some of these that count neither
    as inside nor as outside. How telling: the likelihood ratio of Dunning 1993, since the odds of a word that all have
    and of one that most have are too alike.
    """
    size, others = len(inside), count - len(inside) - len(beside)
    neither = Counter(word for words in beside for word in words)
    found = []
    for word, hits in Counter(word for words in inside for word in words).items():
        elsewhere = everywhere[word] - hits - neither[word]
        if hits >= least * size and elsewhere <= RARE * others:
            odds = _log_odds(hits, size) - _log_odds(elsewhere, others)
            telling = _likelihood(hits, size) + _likelihood(elsewhere, others)
            telling -= _likelihood(hits + elsewhere, size + others)
            found.append((telling, Word(word, hits / size, elsewhere, odds)))
    return tuple(word for _, word in sorted(found, key=lambda pair: (-pair[0], pair[1].text)))


def _log_odds(hits: int, size: int) -> float:
    return float(np.log((hits + PRIOR) / (size - hits + PRIOR)))


def _likelihood(hits: int, size: int) -> float:
    """Logarithm of the best likelihood of `hits` of `size` by one rate."""
    return float(sum(part * np.log(part / size) for part in (hits, size - hits) if part))
