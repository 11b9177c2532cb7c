"""Put a base form into the form of another word: a replaced word must fit where the old one stood.

English, by WordNet's irregular forms and the common rules. Where the right form is not certain the answer is None,
and another word is taken: "swum" or "swam" is not guessed at.
"""

from defense.language.lexicon import PartOfSpeech
from defense.language.lexicon.uses import base_form, irregular_forms

VOWELS = frozenset("aeiou")
PLURALS = {"man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet", "tooth": "teeth",
           "goose": "geese", "mouse": "mice", "ox": "oxen", "wolf": "wolves", "leaf": "leaves", "knife": "knives",
           "calf": "calves", "shelf": "shelves", "loaf": "loaves", "wife": "wives", "half": "halves",
           "scarf": "scarves", "sheep": "sheep", "fish": "fish", "deer": "deer", "stomach": "stomachs",
           "bus": "buses", "gas": "gases"}  # fmt: skip
SINGULARS = {plural: word for word, plural in PLURALS.items() if plural != word}
# The past is as the base form; WordNet lists such forms nowhere.
UNCHANGED = frozenset("bet burst cast cost cut fit hit hurt let put quit read rid set shed shut split spread".split())


def alike(new: str, word: str, part: PartOfSpeech) -> str | None:
    """The base form `new` in the form that `word` has (dogs, cat: cats; jumping, run: running).

    None where `word` is no such part of speech, or the form of `new` is irregular and not known for sure.
    Adjectives and adverbs come back as they are.
    """
    word = word.lower()
    base = singular(word) if part == "noun" else base_form(word, part)
    if base is None:
        return None
    if part == "noun":
        return new if base == word else plural(new)
    if part == "verb" and word in UNCHANGED:
        return None
    if part == "verb" and base != word:
        if word.endswith("ing"):
            return ing_form(new)
        return third_person(new) if word == third_person(base) else past(new)
    return new


def singular(noun: str) -> str | None:
    """What a noun is a form of (people: person); None for what is no noun."""
    return SINGULARS.get(noun) or base_form(noun, "noun")


def plural(noun: str) -> str:
    """A word that ends in a single s (trousers) is taken for a plural already."""
    if noun in PLURALS:
        return PLURALS[noun]
    if noun.endswith("man") and noun != "human":
        return noun.removesuffix("man") + "men"
    is_plural = noun.endswith("s") and not noun.endswith(("ss", "us", "is"))
    return noun if is_plural or noun in SINGULARS else third_person(noun)


def third_person(verb: str) -> str:
    """The s-form; nouns without an irregular plural are spelt by the same rule."""
    if verb.endswith(("s", "x", "z", "ch", "sh")) or (verb.endswith("o") and verb[-2:-1] not in VOWELS):
        return verb + "es"
    if verb.endswith("y") and verb[-2:-1] not in VOWELS:
        return verb[:-1] + "ies"
    return verb + "s"


def ing_form(verb: str) -> str:
    listed = [form for form in irregular_forms(verb, "verb") if form.endswith("ing")]
    if listed:
        return listed[0]
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + "ing"


def past(verb: str) -> str | None:
    """Past and participle where they are one regular form; None for irregular verbs."""
    listed = [form for form in irregular_forms(verb, "verb") if not form.endswith("ing")]
    if verb in UNCHANGED or any(not form.endswith("ed") for form in listed):
        return None
    if listed:
        return listed[0]
    return verb + ("d" if verb.endswith("e") else "ed")
