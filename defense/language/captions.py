"""Text augmentation: EDA ("easy data augmentation", Wei and Zou 2019, arXiv 1901.11196), the text view of CleanCLIP.

Rules and parameters as CleanCLIP and RoCLIP released them (alpha 0.1, deletion 0.1, one result a caption), save that
- one of the four operations is drawn first and only that one is carried out; they make all four and keep one at random:
  the same distribution for a quarter of the work;
- what is inserted comes from a word that is not a stop word, as EDA's paper has it; the released code does not look,
  and WordNet answers for "a" with "angstrom";
- the first synonym is the first of the commonest sense that has one (of "dogs" it is "dog"); theirs followed the hash
  order of Python's sets;
- everything is drawn from the generator given, so a caption can have another view in every epoch.
"""

import re
from collections.abc import Callable

import numpy as np

from defense.language.lexicon import STOP_WORDS, synonyms

APOSTROPHES = str.maketrans("", "", "'\u2019")
WORD = re.compile("[a-z]+")
INSERTION_TRIES = 10
SWAP_TRIES = 4

Draw = Callable[[], float]  # uniform in [0, 1); three times faster than Generator.integers for one number


def eda(caption: str, rng: np.random.Generator, alpha: float = 0.1, deletion: float = 0.1) -> str:
    """`caption` cleaned and changed by one operation out of four, each with probability 1/4.

    With L words and n = max(1, floor(alpha L)): synonym replacement of n distinct words that are no stop words, each
    wherever it occurs by one of its synonyms; n insertions of a random word's first synonym; n swaps of two words;
    or deletion of each word with probability `deletion`, one staying if all would go.

    Never raises on a caption. One in which cleaning leaves no word (empty, emoji, digits, another script) is returned
    as it came; one that the operation drawn cannot change (no synonym, nothing deleted) is returned cleaned.
    The result depends on the arguments and the state of `rng` alone. Raises ValueError for shares outside 0..1.
    """
    if not (0 <= alpha <= 1 and 0 <= deletion <= 1):
        raise ValueError(f"alpha and deletion are shares between 0 and 1, not {alpha} and {deletion}")
    words = clean(caption)
    if not words:
        return caption
    draw, num_changes = rng.random, max(1, int(alpha * len(words)))
    operation = int(draw() * 4)
    if operation == 0:
        words = replace_by_synonyms(words, num_changes, draw)
    elif operation == 1:
        words = insert_synonyms(words, num_changes, draw)
    elif operation == 2:
        words = swap_words(words, num_changes, draw)
    else:
        words = delete_words(words, deletion, draw)
    return " ".join(words)


def clean(caption: str) -> list[str]:
    """The caption's words: apostrophes deleted, lower case, everything outside a-z a space, digits and hyphens too."""
    return WORD.findall(caption.translate(APOSTROPHES).lower())


def replace_by_synonyms(words: list[str], num_changes: int, draw: Draw) -> list[str]:
    """Visits the distinct words in random order until `num_changes` of them had a synonym."""
    candidates = [word for word in dict.fromkeys(words) if word not in STOP_WORDS]
    while candidates and num_changes:
        word = candidates.pop(_index(candidates, draw))
        if known := synonyms(word):
            new = known[_index(known, draw)]
            words = [new if each == word else each for each in words]
            num_changes -= 1
    return words


def insert_synonyms(words: list[str], num_changes: int, draw: Draw) -> list[str]:
    """Each: up to 10 words are tried for a synonym; it goes in front of a random word."""
    words = list(words)
    for _ in range(num_changes):
        for _ in range(INSERTION_TRIES):
            if known := synonyms(words[_index(words, draw)]):  # none for stop words
                words.insert(_index(words, draw), known[0])
                break
    return words


def swap_words(words: list[str], num_changes: int, draw: Draw) -> list[str]:
    """Each: one place, and up to 4 draws for another one."""
    words = list(words)
    for _ in range(num_changes):
        first = _index(words, draw)
        for _ in range(SWAP_TRIES):
            second = _index(words, draw)
            if second != first:
                words[first], words[second] = words[second], words[first]
                break
    return words


def delete_words(words: list[str], deletion: float, draw: Draw) -> list[str]:
    return [word for word in words if draw() >= deletion] or [words[_index(words, draw)]]


def _index(items: list[str] | tuple[str, ...], draw: Draw) -> int:
    """Uniform in 0..len - 1; the rounding of a 53-bit float favours no index by more than len / 2**53."""
    return int(draw() * len(items))
