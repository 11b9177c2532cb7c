"""Which suspicious rows lie together: as whole images, or as seen through a keyhole. Pure functions of neighbours."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from defense.detector import Evidence, Neighbours
from defense.judging.captions import SHARED, common_words

LINKS = 8  # nearest images over which suspicious rows are joined
SMALLEST = 8  # rows of a cluster
MOST = 0.5  # of suspicious rows that are joined say the word by which they are parted, where none is shared


def cores(
    suspicious: np.ndarray,
    evidence: Evidence,
    keyholes: Sequence[str],
    vocabulary: list[frozenset[str]],
    everywhere: Counter[str],
) -> list[tuple[np.ndarray, np.ndarray, str | None]]:
    """Of suspicious rows, bool (N,), those that lie together: of each cluster its core and what it grows to, int64
    rising, and the keyhole through which it lies together, None for whole images.

    vocabulary: the words of every caption; everywhere: how many captions have a word.
    """
    labels = components(suspicious, evidence.near, LINKS)
    for joined in members(labels):
        labels[joined] = -1
        for core in parted(joined, evidence.near, vocabulary, everywhere):
            labels[core] = core[0] if len(core) >= SMALLEST else -1
    whole = grown(labels, evidence.near, LINKS)
    found: list[tuple[np.ndarray, np.ndarray, str | None]] = [
        (core, reached, None) for core, reached in zip(members(labels), members(whole), strict=True)
    ]
    near = {view: evidence.changed[view].near for view in keyholes}
    return found + through(suspicious & (whole < 0), whole >= 0, near, vocabulary, everywhere)


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


def through(
    left: np.ndarray,
    taken: np.ndarray,
    near: dict[str, Neighbours],
    vocabulary: list[frozenset[str]],
    everywhere: Counter[str],
) -> list[tuple[np.ndarray, np.ndarray, str | None]]:
    """Of suspicious rows that lie in no cluster as whole images, those that lie together through a keyhole, first that
    through which most do: as `cores`.

    left: bool (N,), these rows; taken: bool (N,), rows of other clusters, to which none grows; near: neighbours by
    keyhole. Poisons of a learned patch look alike in nothing but the patch.
    """
    found: list[tuple[np.ndarray, np.ndarray, str | None]] = []
    left, taken = left.copy(), taken.copy()
    while left.any() and near:
        largest = {view: max(members(components(left, one, LINKS)), key=len) for view, one in near.items()}
        view = max(near, key=lambda view: len(largest[view]))
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


def members(labels: np.ndarray) -> list[np.ndarray]:
    """The places of every cluster, rising, by its label."""
    chosen = np.flatnonzero(labels >= 0)
    order = chosen[np.argsort(labels[chosen], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []
