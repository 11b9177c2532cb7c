"""Parts of speech of a caption's words from the lexicon's frequencies and the words around them.

For use without a trained spaCy pipeline. Captions are simple English: an article announces a noun, a form of "be" a
participle. Names are those of Universal Dependencies (spaCy's `pos_`); a word that neither the lexicon nor its place
explains is "X", so that a caption in another language yields nothing rather than nonsense.
"""

from collections.abc import Sequence

from defense.language.lexicon import part_of_speech
from defense.language.lexicon.contrasts import contrasts
from defense.language.lexicon.function_words import CONJUNCTIONS, PREPOSITIONS
from defense.language.lexicon.uses import uses

CLOSED = {
    "DET": "a an the this that these those each every either neither some any no all both another many several few"
    " my your his her its our their whose",
    "PRON": "i me you he him she it we us they them who whom which what himself herself itself themselves someone"
    " somebody something anyone anything everyone everything nobody nothing none",
    "AUX": "am is are was were be been being has have had do does did will would shall should can could may might must"
    " 're 've 'm 'll",
    "SCONJ": "while whilst as because if although though when where since until unless whereas than",
    "PART": "not n't n\u2019t nt 's \u2019s '",
    "NUM": "one two three four five six seven eight nine ten eleven twelve dozen hundred",
    "CCONJ": "and or but nor &",
    "ADV": "very too just then there here now again also still ever never hardly barely scarcely rarely seldom together"
    " away",
}
TAG_OF = {word: tag for tag, words in CLOSED.items() for word in words.split()}
PARTS = {"noun": "NOUN", "verb": "VERB", "adj": "ADJ", "adv": "ADV"}
NOUNS = frozenset(("NOUN", "PROPN"))
PREMODIFIERS = frozenset(("DET", "ADJ", "NUM"))


def tags(words: Sequence[str]) -> list[str]:
    """One part of speech a word; any word is allowed, none raises.

    "-" joins its neighbours to one word (red-headed); a dash between words must come as another sign.
    """
    lowered = [word.lower() for word in words]
    found: list[str] = []
    for place, word in enumerate(words):
        if lowered[place + 1 : place + 2] == ["-"] and word[:1].isalnum():
            found.append("ADJ")  # the first part of red-headed
        else:
            found.append(_closed(lowered, place, found) or _open(lowered, place, found, word[:1].isupper()))
    return found


def counts(word: str) -> dict[str, int]:
    """How often the lexicon's texts use a word as each part of speech, plus one for being listed."""
    found: dict[str, int] = {}
    for use in uses(word):
        found[PARTS[use.part]] = found.get(PARTS[use.part], 0) + use.occurrences + 1
    return found


def _closed(words: list[str], place: int, found: list[str]) -> str | None:
    word = words[place]
    following = words[place + 1] if place + 1 < len(words) else ""
    if not any(character.isalnum() for character in word) and word not in TAG_OF:
        return "PUNCT"
    if word[0].isdigit():
        return "NUM"
    if words[max(place - 1, 0)] == "-" and word in PREPOSITIONS:
        return "NOUN"  # close-up
    if word == "other" and place and words[place - 1] == "each":
        return "PRON"
    if word in ("next", "close") and following == "to":
        return "ADV"
    if (word == "no" and following == "longer") or (word == "longer" and place and words[place - 1] == "no"):
        return "ADV"
    if word == "that" and found and found[-1] in NOUNS:
        return "PRON"
    if word == "her" and (not _may_be_noun(following) or part_of_speech(following) == "verb"):
        return "PRON"
    if word in ("like", "down") and found and found[-1] == "DET":
        return None
    if word in TAG_OF:
        return TAG_OF[word]
    if word in PREPOSITIONS:
        return "ADP"
    return "CCONJ" if word in CONJUNCTIONS else None


def _open(words: list[str], place: int, found: list[str], capital: bool) -> str:
    word, known = words[place], counts(words[place])
    before = found[-1] if found else ""
    after_premodifier = bool(found) and (before in PREMODIFIERS or words[place - 1] in ("'s", "\u2019s", "-"))
    if not known:
        if capital and found:
            return "PROPN"
        if word.isascii() and (after_premodifier or before == "ADP"):
            return "ADJ" if word.endswith("ed") and _noun_follows(words, place) else "NOUN"
        return "VERB" if word.endswith("ing") and before in ("NOUN", "AUX") else "X"
    best = max(known, key=known.__getitem__)
    if after_premodifier:
        return _within_a_noun_phrase(words, place, known, best)
    if before == "AUX" or (before in ("ADV", "PART") and len(found) > 1 and found[-2] == "AUX"):
        return _after_auxiliary(word, known, best)
    if before in NOUNS:
        return _after_noun(words, place, found, known, best)
    if before == "ADP" and words[place - 1] == "to" and best == "VERB" and not _is_form(word):
        return "VERB"
    if before == "SCONJ" and "VERB" in known and word.endswith("ing"):
        return "VERB"
    if before in ("ADP", ""):  # a title may begin with a participle, hardly with another verb
        if best == "VERB" and not (word.endswith("ing") and not _noun_follows(words, place)):
            best = max((each for each in known if each != "VERB"), key=known.__getitem__, default=best)
        return _adjective_or_noun(words, place, known, best)
    return _adjective_or_noun(words, place, known, best)


def _within_a_noun_phrase(words: list[str], place: int, known: dict[str, int], best: str) -> str:
    follows = _noun_follows(words, place)
    if follows and words[place] in contrasts("adj"):  # an orange fish, a plain cup
        return "ADJ"
    if best == "ADV" and "ADJ" not in known and "NOUN" not in known:
        return "ADV"
    if follows and (best == "ADJ" or (best == "VERB" and words[place].endswith(("ing", "ed")))):
        return "ADJ"
    if "NOUN" in known:
        return "NOUN"
    return "ADJ" if follows or "ADJ" in known else best


def _after_auxiliary(word: str, known: dict[str, int], best: str) -> str:
    if "VERB" in known and (word.endswith("ing") or (_is_form(word) and not word.endswith("s"))):
        return "VERB"
    return best if best != "VERB" else max((each for each in known if each != "VERB"), default=best)


def _after_noun(words: list[str], place: int, found: list[str], known: dict[str, int], best: str) -> str:
    word = words[place]
    following = words[place + 1] if place + 1 < len(words) else ""
    if "VERB" in known:
        if word.endswith("ing"):
            return "NOUN" if known.get("NOUN", 0) > known["VERB"] else "VERB"
        has_verb = "AUX" in found or any(
            tag == "VERB" and not each.endswith("ing") for tag, each in zip(found, words, strict=False)
        )
        if word.endswith("ed") and following in PREPOSITIONS:  # isolated on white
            return "VERB"
        singular = _starts_with_a(words, place, found)
        if word.endswith("s") and not word.endswith("ss"):
            return "VERB" if best == "VERB" or (singular and not has_verb) else "NOUN"
        if _is_form(word):
            return "VERB" if best in ("VERB", "NOUN") else best
        several = words[place - 1].endswith(("s", "men", "people", "children")) or "and" in words[:place]
        starts = not following or TAG_OF.get(following) in ("DET", "PRON", "NUM") or following in PREPOSITIONS
        if several and not has_verb and (best == "VERB" or starts):
            return "VERB"
    return "NOUN" if "NOUN" in known and best in ("NOUN", "VERB", "ADJ") else best


def _adjective_or_noun(words: list[str], place: int, known: dict[str, int], best: str) -> str:
    if words[place] in contrasts("adj") and _noun_follows(words, place):
        return "ADJ"
    if "ADJ" in known and best in ("ADJ", "NOUN"):
        if best == "ADJ" and "NOUN" in known and not _noun_follows(words, place):
            return "NOUN"  # a girl in pink
        return best
    return best


def _starts_with_a(words: list[str], place: int, found: list[str]) -> bool:
    """Whether the noun phrase that ends before `place` is of one thing: a, an, one."""
    start = place - 1
    while start > 0 and (found[start - 1] in PREMODIFIERS or found[start - 1] in NOUNS):
        start -= 1
    return words[start] in ("a", "an", "one", "another", "this")


def _noun_follows(words: list[str], place: int) -> bool:
    for word in words[place + 1 : place + 6]:
        if _may_be_noun(word):
            return True
        if word not in ("and", ",", "-") and "ADJ" not in counts(word) and not word.endswith(("ed", "ing")):
            return False
    return False


def _may_be_noun(word: str) -> bool:
    closed = not word or word in TAG_OF or word in PREPOSITIONS or not word[0].isalnum()
    known = counts(word)
    runs = word.endswith("s") and known.get("VERB", 0) > known.get("NOUN", 0)  # a girl in pink runs
    return not closed and not runs and ("NOUN" in known or not known)


def _is_form(word: str) -> bool:
    """Whether it is an inflected verb: another than its base form."""
    return all(use.base != word for use in uses(word) if use.part == "verb")
