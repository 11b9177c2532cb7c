"""Words of a different meaning to put in another's place: a false word for a true one.

In this order: our table of everyday contrasts (lexicon.contrasts); WordNet's opposites; WordNet's words of the
same kind, as far as its tagged texts use them and they share no synonym with the old word. Never a synonym by either
word's entry. Relations that are prepositions have a table here, as WordNet has none.
"""

from collections.abc import Sequence
from functools import lru_cache

from defense.language.inflection import alike, singular
from defense.language.lexicon import PartOfSpeech, cohyponyms, opposites, synonyms
from defense.language.lexicon.contrasts import contrasts
from defense.language.lexicon.uses import base_form, uses

PREPOSITIONS = {
    "above": ("below", "behind"), "across": ("away from",), "after": ("before",), "against": ("away from",),
    "around": ("away from",), "at": ("away from",), "before": ("after",), "behind": ("in front of",),
    "below": ("above", "beside"), "beneath": ("above", "beside"), "beside": ("above", "under"),
    "down": ("up",), "from": ("to",), "in": ("outside", "behind", "under"), "in front of": ("behind",),
    "inside": ("outside",), "into": ("out of",), "near": ("far from",), "next to": ("above", "under", "far from"),
    "off": ("onto",), "on": ("under", "beside", "behind"), "on top of": ("under", "beside"),
    "onto": ("off",), "out of": ("into",), "outside": ("inside",), "over": ("under", "beside"),
    "through": ("around",), "to": ("from",), "to the left of": ("to the right of",),
    "to the right of": ("to the left of",), "toward": ("away from",), "towards": ("away from",),
    "under": ("above", "beside"), "underneath": ("above", "beside"), "up": ("down",), "with": ("without",),
    "without": ("with",),
}  # fmt: skip

IN_USE = 3  # occurrences in WordNet's tagged texts that make a word fit for a caption
# In use there, but nothing one would write under an image.
UNWANTED = frozenset("whore corpse hell ejaculate fate nature mutant liberal relation way thing".split())


@lru_cache(8192)
def contraries(word: str, part: PartOfSpeech) -> tuple[str, ...]:
    """Single words that differ from `word` in meaning, in its own form (dogs: cats), of the first source with any.

    () for a word that is no such part of speech, that nothing is known about, or whose counterparts have no certain
    form.
    """
    base = singular(word.lower()) if part == "noun" else base_form(word, part)
    listed = contrasts(part)
    ours = listed.get(word.lower()) or listed.get(base or "") or ()
    if base is None:  # a biker: WordNet knows none
        return ours
    near = {base, *synonyms(base)}
    kind = [new for new in cohyponyms(base, part) if near.isdisjoint(synonyms(new))]
    for candidates in (ours, _in_use(opposites(base), part), _in_use(kind, part)):
        fitting = [alike(new, word, part) for new in candidates]
        if found := tuple(new for new in dict.fromkeys(fitting) if new and not same_meaning(new, word)):
            return found
    return ()


@lru_cache(65536)
def same_meaning(word: str, other: str) -> bool:
    """Whether they are equal, forms of one word, or synonyms by the entry of either."""
    word, other = word.lower(), other.lower()
    ours, theirs = _forms(word), _forms(other)
    if not ours.isdisjoint(theirs):
        return True
    return any(not theirs.isdisjoint(synonyms(each)) for each in ours) or any(
        not ours.isdisjoint(synonyms(each)) for each in theirs
    )


@lru_cache(8192)
def _forms(word: str) -> frozenset[str]:
    """The word and what it may be a form of."""
    return frozenset({word, singular(word) or word, *(use.base for use in uses(word))})


def _in_use(words: Sequence[str], part: PartOfSpeech) -> list[str]:
    """The single ones that the tagged texts use as that part of speech."""
    return [
        new
        for new in words
        if " " not in new
        and new not in UNWANTED
        and any(use.part == part and use.base == new and use.occurrences >= IN_USE for use in uses(new))
    ]
