"""Every use of a word that the lexicon knows: its parts of speech, base forms and how often each was meant.

`defense.language.lexicon.part_of_speech` gives the commonest use alone; whoever tags words in context needs them all.
"""

from functools import cache, lru_cache
from typing import NamedTuple

from defense.language.lexicon import NAMES, REMEMBERED_WORDS, PartOfSpeech, _readings, _table


class Use(NamedTuple):
    part: PartOfSpeech
    base: str
    occurrences: int  # in WordNet's tagged texts


@lru_cache(REMEMBERED_WORDS)
def uses(word: str) -> tuple[Use, ...]:
    """All uses of `word` (any case, inflected or not), in the lexicon's order; () for what WordNet does not know.

    Function words are not special here: of "a" it knows the angstrom.
    """
    readings = _readings(word.lower())
    return tuple(dict.fromkeys(Use(NAMES[each.letter], each.base, each.occurrences) for each in readings))


def base_form(word: str, part: PartOfSpeech) -> str | None:
    """What `word` is a form of as that part of speech (dogs: dog), the commonest; None where it is no such word."""
    found = [use for use in uses(word) if use.part == part]
    return max(found, key=lambda use: use.occurrences).base if found else None


def irregular_forms(base: str, part: PartOfSpeech) -> tuple[str, ...]:
    """WordNet's irregular forms of a base form (run: ran, running), in alphabetical order."""
    return _irregular().get((base, part), ())


@cache
def _irregular() -> dict[tuple[str, str], tuple[str, ...]]:
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for line in _table():
        form, letter, rest = line.split("\t", 2)
        if letter.isupper():
            for base in rest.split(","):
                key = base, NAMES[letter.lower()]
                found[key] = (*found.get(key, ()), form)
    return found
