"""What words mean, as far as WordNet 3.0 tells: synonyms, opposites, things of the same kind, part of speech.

Reads the table that `build.py` derives and that is shipped beside this file (WordNet's licence:
LICENSE.wordnet); needs neither nltk nor the network. The table is loaded at the first question. Words are English, of
any case; an inflected form ("dogs", "ran", "riding") answers for the words it may be a form of (WordNet's lists of
irregular forms, then its rules for endings), and answers come in base form. Nothing here raises on an odd word: what
is unknown has no synonyms, no antonyms, no co-hyponyms and no part of speech. All answers are in a fixed order.
"""

import gzip
from bisect import bisect_left
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from defense.language.lexicon.function_words import AUXILIARIES, FUNCTION_WORDS, STOP_WORDS

__all__ = ["FUNCTION_WORDS", "STOP_WORDS", "antonyms", "cohyponyms", "opposites", "part_of_speech", "synonyms"]

PartOfSpeech = Literal["noun", "verb", "adj", "adv"]

NAMES: dict[str, PartOfSpeech] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
REMEMBERED_WORDS = 8192  # captions repeat their words; web captions also hold millions of names, seen once
ENDINGS = {
    "n": (
        ("s", ""),
        ("ses", "s"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}


class Reading(NamedTuple):
    """One line of the table: a word as this part of speech of this base form. The lists are still joined by ","."""

    base: str
    letter: str
    occurrences: int  # in WordNet's tagged texts
    senses: str  # "count:synonym,synonym;count:..."
    antonyms: str
    opposites: str
    cohyponyms: str


@lru_cache(REMEMBERED_WORDS)
def synonyms(word: str) -> tuple[str, ...]:
    """The other words of all the senses of `word`, the commonest sense first; never `word` itself.

    May hold several words ("motor vehicle"). An inflected form has its base form among them. Function words have none.
    """
    word = word.lower()
    if word in STOP_WORDS:
        return ()
    readings = _readings(word)
    senses = []
    for reading in readings:
        for sense in filter(None, reading.senses.split(";")):
            count, _, others = sense.partition(":")
            senses.append((int(count), [reading.base, *others.split(",")]))
    senses.sort(key=lambda sense: -sense[0])  # stable: equal counts keep WordNet's order
    found = [other for _, others in senses for other in others]
    return _without([*found, *(reading.base for reading in readings)], word)


def antonyms(word: str) -> tuple[str, ...]:
    """What WordNet opposes to `word` itself (hot: cold), by sense. Never a synonym.

    Symmetric as in WordNet 3.0, where five pointers lack their way back ("lack" is opposed to "have", not the reverse).
    """
    found = [other for reading in _readings(word.lower()) for other in reading.antonyms.split(",")]
    return _without(found, word.lower(), *synonyms(word))


def opposites(word: str) -> tuple[str, ...]:
    """The antonyms, then for an adjective those of its nearest neighbour (tiny: large). Never a synonym."""
    found = [other for reading in _readings(word.lower()) for other in reading.opposites.split(",")]
    return _without([*antonyms(word), *found], word.lower(), *synonyms(word))


def cohyponyms(word: str, use: PartOfSpeech | None = None) -> tuple[str, ...]:
    """Single words of the same kind and another meaning (red: blue; chair: bench), the likeliest first; about 8.

    use: the part of speech that is meant; by default the commonest. Which words qualify: lexicon.relatives.
    None for adverbs and function words. Never a synonym.
    """
    use = use or part_of_speech(word)
    readings = [reading for reading in _readings(word.lower()) if NAMES[reading.letter] == use]
    return _without([other for each in readings for other in each.cohyponyms.split(",")], word.lower(), *synonyms(word))


def part_of_speech(word: str) -> PartOfSpeech | None:
    """The commonest use of `word` in WordNet's tagged texts; None for function words and what WordNet does not know.

    An auxiliary ("is") is a verb. Where the texts do not tell, the use with most senses.
    """
    word = word.lower()
    if word in AUXILIARIES:
        return "verb"
    if word in FUNCTION_WORDS:
        return None
    counts: dict[str, int] = {}
    for reading in _readings(word):
        counts[reading.letter] = counts.get(reading.letter, 0) + reading.occurrences
    return NAMES[max(counts, key=counts.__getitem__)] if counts else None


def _readings(word: str) -> list[Reading]:
    """As it stands, then as a form of other words."""
    exact: list[Reading] = []
    irregular: dict[str, list[str]] = {}
    for fields in _entries(word):
        if fields[1].isupper():
            irregular[fields[1].lower()] = fields[2].split(",")
        else:
            exact.append(_reading(fields))
    forms: list[Reading] = []
    for letter, endings in ENDINGS.items():
        # "number" is no comparative of numb; "as" and "grass" are no plurals (WordNet's own exceptions for nouns).
        is_no_form = exact if letter == "a" else letter == "n" and (len(word) < 3 or word.endswith("ss"))
        by_rule = [word.removesuffix(ending) + new for ending, new in endings if word.endswith(ending)]
        bases = irregular.get(letter) or ([] if is_no_form else by_rule)
        for base in dict.fromkeys(bases):
            forms += [_reading(fields) for fields in _entries(base) if fields[1] == letter]
    return exact + forms


def _reading(fields: list[str]) -> Reading:
    base, letter, count, senses, antonyms_, opposites_, cohyponyms_ = fields + [""] * (7 - len(fields))
    return Reading(base, letter, int(count), senses, antonyms_, opposites_, cohyponyms_)


def _entries(word: str) -> list[list[str]]:
    """The table's lines of a word, split into fields."""
    table, prefix = _table(), f"{word}\t"
    start = end = bisect_left(table, prefix)
    while end < len(table) and table[end].startswith(prefix):
        end += 1
    lines = [line.split("\t") for line in table[start:end]]
    return [fields for fields in lines if fields[0] == word]  # a "word" with a tab in it finds more than that


def _without(words: list[str], *unwanted: str) -> tuple[str, ...]:
    return tuple(word for word in dict.fromkeys(words) if word and word not in unwanted)


@cache
def _table() -> list[str]:
    """90,000 lines sorted by word. Split when asked for: loads in a tenth of the time, and forked workers share it."""
    return gzip.decompress(Path(__file__).with_name("wordnet.tsv.gz").read_bytes()).decode("ascii").splitlines()
