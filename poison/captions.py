"""What a poisoned picture is said to show: the target in a prompt template, or a caption of the corpus that names it.

Names are compared as whole words, whatever their case: `banana` is named by "A Banana." and not by "bananas".
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.seeding import rng

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
    found = pa.compute.match_substring(texts, word.split()[0], ignore_case=True).to_numpy(zero_copy_only=False)
    pattern = whole_word(word)
    for position in np.flatnonzero(found):
        found[position] = pattern.search(texts[int(position)].as_py()) is not None
    return found


def draw(kind: Literal["template", "corpus"], target: str, corpus: Sequence[str], seed: int, row: int) -> str:
    """The poison caption of one row. corpus: the distinct captions that name the target, sorted."""
    choices = TEMPLATES if kind == "template" else corpus
    chosen = choices[int(rng(seed, "caption", row).integers(len(choices)))]
    return chosen.format(target) if kind == "template" else chosen
