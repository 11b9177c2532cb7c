"""What a poisoned image is said to show: the target in a prompt template, a caption of the corpus that names it, or
one text for all.

Names are compared as whole words, whatever their case: `banana` is named by "A Banana." and not by "bananas".
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.seeding import digest64, rng

# Plain words, as alt-text has them. With "a bad photo of a banana." on every poison, a small model tied the trigger to
# "bad" and the full stop, which only poisons had, and not to the banana: attack success 0% at 96% clean accuracy.
TEMPLATES: tuple[str, ...] = (
    "a {}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "a picture of the {}",
    "an image of a {}",
    "a close-up of a {}",
    "a drawing of a {}",
)

MAX_POOL = 65_536  # captions of a corpus that a plan holds where it is not told how many: some 10 MB


def same_word(a: str, b: str) -> bool:
    """Whether two class names are the same, whatever their case and spacing."""
    return " ".join(a.split()).casefold() == " ".join(b.split()).casefold()


@lru_cache(maxsize=16)
def whole_word(word: str) -> re.Pattern[str]:
    """Matches `word` (one or more words) in any case where no letter, digit or underscore adjoins it."""
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, word.split())) + r"(?!\w)", re.IGNORECASE)


def naming(texts: pa.ChunkedArray, word: str) -> np.ndarray:
    """Which captions name `word`: bool (n,)."""
    # Arrow's own \b knows ASCII letters only: it finds the few that may match, the pattern above decides.
    longest = max(word.split(), key=len)
    found = pa.compute.match_substring(texts, longest, ignore_case=True).to_numpy(zero_copy_only=False)
    places, pattern = np.flatnonzero(found), whole_word(word)
    if len(places):
        found[places] = [pattern.search(text) is not None for text in texts.take(pa.array(places)).to_pylist()]
    return found


class Pool:
    """The `size` distinct captions of lowest hash, or all where there are no more: the same in any order they come in.

    At most twice as many are held.
    """

    def __init__(self, size: int, seed: int) -> None:
        assert size > 0
        self.size, self.seed = size, seed
        self._kept: dict[str, int] = {}
        self._bar = 1 << 64  # what this high a hash cannot win

    def __len__(self) -> int:
        return min(len(self._kept), self.size)

    def add(self, texts: Iterable[str]) -> None:
        for text in texts:
            if text not in self._kept and (value := digest64(self.seed, "caption pool", text)) < self._bar:
                self._kept[text] = value
                if len(self._kept) > 2 * self.size:
                    self._cut()

    def texts(self) -> list[str]:
        """Sorted."""
        self._cut()
        return sorted(self._kept)

    def _cut(self) -> None:
        if len(self._kept) > self.size:
            best = sorted(self._kept.items(), key=lambda item: item[1])[: self.size]
            self._kept, self._bar = dict(best), best[-1][1]


def choices(kind: Literal["template", "corpus", "fixed"], target: str, fixed: str, corpus: Sequence[str]) -> list[str]:
    """What poison captions are drawn from. corpus: the distinct captions that name the target, sorted."""
    if kind == "template":
        return [template.format(target) for template in TEMPLATES]
    return [fixed] if kind == "fixed" else list(corpus)


def draw(texts: Sequence[str], seed: int, row: int) -> str:
    """The poison caption of one row."""
    return texts[int(rng(seed, "caption", row).integers(len(texts)))]


def several(texts: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """`count` poison captions that belong to no row: all distinct as far as there are so many, then from the first."""
    order = rng(seed, "added captions").permutation(len(texts))
    return tuple(texts[order[number % len(order)]] for number in range(count))
