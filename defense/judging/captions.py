"""What the captions of some rows have in common, and others do not."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SHARED = 0.8  # of its core's captions have a cluster's word; of all it grows to, clean rows among them, fewer may
RARE = 0.25  # of the captions outside at most: a word that more of them have says nothing
STAYS = 0.5  # of what is said around others': a true word, around changed images; brands keep 0.77 to 0.91
PRIOR = 0.5  # captions added to every count, so that odds are finite
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Word:
    """What the captions of a cluster's core have in common. share: of these that have it; elsewhere: how many captions
    outside have it, rows that the cluster only grew to aside; odds: the logarithm of its odds in the core over those
    outside; stays: of the nearest to the changed images of the core, how many say it, those that are of the cluster
    aside, by each view that takes most of these images OUT of it and leaves the word TOLD; usual: the same of other
    rows that say it; witness: of the nearest to the plain images by a witness (defense.judging.testimony), of the
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


def words_of(caption: str) -> frozenset[str]:
    """The words of a caption, in small letters."""
    return frozenset(WORD.findall(caption.lower()))


def saying(word: str, vocabulary: list[frozenset[str]]) -> np.ndarray:
    """Which captions have the word: bool (N,)."""
    return np.array([word in words for words in vocabulary], bool)


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
