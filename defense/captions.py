"""Text augmentation: EDA ("easy data augmentation", Wei and Zou 2019), the text view of CleanCLIP and RoCLIP.

Follows defenses' released parameters (alpha 0.1, deletion 0.1, one result a caption) and differs in three ways, on
purpose. One of the four operations is drawn first and only that one is carried out; they make all four and keep one at
random: the same distribution for a quarter of the work. Words are inserted for a random word that is not a stop word,
as the paper has it; the released code does not look, and WordNet would answer for "a" with "angstrom". Everything is
drawn from the generator given: theirs was frozen at the start, and followed the hash order of Python's sets.
"""

import re
from collections.abc import Callable

import numpy as np

from defense.lexicon import STOP_WORDS, synonyms

APOSTROPHES = str.maketrans("", "", "'\u2019")
WORD = re.compile("[a-z]+")
INSERTION_TRIES = 10
SWAP_TRIES = 4

Draw = Callable[[], float]  # uniform in [0, 1); several times faster than Generator.integers for one number


def eda(caption: str, rng: np.random.Generator, alpha: float = 0.1, deletion: float = 0.1) -> str:
    """`caption` cleaned and changed by one operation out of four, each with probability 1/4.

    Cleaned: apostrophes deleted, lower case, everything outside a-z to a space (digits and hyphens vanish, as in the
    released code), single spaces. A caption in which nothing remains (empty, emoji, another script) is returned as it
    came; never raises on a caption. With L words and n = max(1, floor(alpha L)):
    synonym replacement of n distinct words that are no stop words, each by a random synonym wherever it occurs;
    n random insertions of a random word's first synonym; n random swaps of two words; or
    deletion of each word with probability `deletion`, one random word staying if all would go.
    Short captions may come back merely cleaned (no word with a synonym, nothing deleted).
    The result depends on the arguments and the state of `rng` alone. Raises ValueError for shares outside 0..1.
    """
    if not (0 <= alpha <= 1 and 0 <= deletion <= 1):
        raise ValueError(f"alpha and deletion are shares between 0 and 1, not {alpha} and {deletion}")
    words = WORD.findall(caption.translate(APOSTROPHES).lower())
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
