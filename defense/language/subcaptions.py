"""Sub-captions: parts of a caption that are true of its image, and the same with one thing wrong.

For TA-Cleaner (arXiv 2409.17601, later CleanerCLIP): in every epoch a few captions are cut into positive
sub-captions, which keep subject, relation and object, and negative ones, where an attribute, a relation or a noun is
changed; both are aligned to the image. The paper has no public code. What it leaves open is ours:

- a positive is one statement of the caption (language.statements) in the caption's own words and order, in lower case
  (CLIP's tokeniser drops case), with the adjectives of subject and object and without further objects, adverbs and
  clauses. One without a verb may be opened by "a photo of";
- a negative is a positive with one word changed, or one preposition ("in front of": "behind"). All else stays, but for
  "a" and "an", which follow the new word: else the wrong article would give negatives away;
- the new word differs in meaning (language.contraries), and its base form stands nowhere in the caption: of "a white
  dog beside a black dog" the negative "a black dog" would be true;
- what a negation governs is said with the negation or not at all (language.negation); of a statement with one there is
  no negative: who wears no coat may well wear no hat;
- WordNet and small tables of ours replace words; the paper's authors are said to have used WordNet and ChatGPT;
- the order is drawn: whoever wants one positive and one negative takes the first of each.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from defense.language.contraries import PREPOSITIONS, contraries, same_meaning
from defense.language.lexicon import STOP_WORDS, PartOfSpeech
from defense.language.lexicon.uses import uses
from defense.language.negation import is_negation
from defense.language.parsing import parse, pipeline
from defense.language.statements import NAMES_OF_PICTURES, Statement, statements

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

OPENING = "a photo of"  # the only words a positive may add
OPENING_SHARE = 0.5
KINDS = ("attribute", "relation", "noun")
TIMES = frozenset("night day morning afternoon evening noon midnight dusk dawn sunset sunrise winter summer".split())
ENGLISH_SHARE = 0.7  # of a caption's words, names aside, the lexicon knows as many at least, or it is not English

AN = re.compile(r"(?!uni|use|eu|one\b)[aeiou]|hour|honest")


@dataclass(frozen=True)
class SubCaptions:
    """positives: true of the image, distinct; negatives: false, distinct, never among the positives.

    Negatives made from positives[0] come first, if it has any. Both are empty for a caption in which no statement was
    found (no English, no noun); negatives alone are empty where no word has a counterpart.
    """

    positives: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()


def subcaptions(caption: str, rng: np.random.Generator, nlp: "Language | None" = None) -> SubCaptions:
    """The sub-captions of a caption: at most 8 positives, for each at most one negative of every kind.

    nlp: the spaCy pipeline that parses; by default the one of ours (defense.language.parsing.pipeline).
    Never raises on a caption. The result depends on the arguments and the state of `rng` alone.
    """
    doc = parse(caption, nlp if nlp is not None else pipeline())
    return of_parsed(doc, rng)


def of_parsed(doc: "Doc", rng: np.random.Generator) -> SubCaptions:
    """The same from a parse: parts of speech and dependencies set."""
    found = statements(doc) if _is_english(doc) else ()
    said = {token.i: token.lower_ for token in doc if token.is_alpha and token.lower_ not in STOP_WORDS}
    positives: dict[str, None] = {}
    negatives: dict[str, None] = {}
    for place in rng.permutation(len(found)):
        statement = found[place]
        words = {i: doc[i].lower_ for i in statement.words}
        opening = OPENING if rng.random() < OPENING_SHARE and _may_be_opened(doc, statement) else ""
        positives[_sentence(doc, statement, words, opening)] = None
        negated = statement.negated or any(is_negation(doc[i]) for i in statement.words)
        for kind in rng.permutation(KINDS):
            if negated:
                continue
            if changes := [*_changes(doc, statement, str(kind), said)]:
                old, new_words = changes[int(rng.integers(len(changes)))]
                new = new_words[int(rng.integers(len(new_words)))]
                changed = words | dict.fromkeys(old, "") | {old[0]: new}
                _adjust_article(statement, changed, old[0])
                negatives[_sentence(doc, statement, changed, opening)] = None
    return SubCaptions(tuple(positives), tuple(each for each in negatives if each not in positives))


def _changes(
    doc: "Doc", statement: Statement, kind: str, said: dict[int, str]
) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
    """What may be changed: the words to take out and what may stand instead. said: the caption's content words."""
    places: tuple[int, ...]
    part: PartOfSpeech
    if kind == "relation":
        places, part = statement.verb, "verb"
        phrase = " ".join(doc[i].lower_ for i in statement.preposition)
        passive = any(doc[i].dep_ == "auxpass" for i in statement.relation)
        timed = any(doc[i].lower_ in TIMES for i in statement.object)  # no "away from night"
        if phrase in PREPOSITIONS and not passive and not timed:
            yield statement.preposition, PREPOSITIONS[phrase]
    elif kind == "attribute":  # numbers have no others than our table's
        places, part = statement.adjectives, "adj"
    else:
        places, part = statement.nouns, "noun"
    for i in places:
        word = doc[i].lower_
        if word in NAMES_OF_PICTURES or _hyphenated(doc, i):  # not within "red-headed"
            continue
        others = [other for j, other in said.items() if j != i]
        new_words = contraries(word, part)
        if fitting := tuple(new for new in new_words if not any(same_meaning(new, other) for other in others)):
            yield (i,), fitting


def _hyphenated(doc: "Doc", i: int) -> bool:
    joined_before = i > 0 and doc[i - 1].text == "-" and not doc[i - 1].whitespace_
    joined_behind = i + 1 < len(doc) and doc[i + 1].text == "-" and not doc[i].whitespace_
    return joined_before or joined_behind


def _may_be_opened(doc: "Doc", statement: Statement) -> bool:
    """No "a photo of a dog runs", no "a photo of dog image"."""
    has_verb = any(doc[i].pos_ in ("VERB", "AUX") for i in statement.relation)
    return not has_verb and not any(doc[i].lower_ in NAMES_OF_PICTURES for i in statement.subject)


def _is_english(doc: "Doc") -> bool:
    words = [token.lower_ for token in doc if token.is_alpha and (token.is_lower or token.i == 0)]
    if not words:
        words = [token.lower_ for token in doc if token.is_alpha]
    known = sum(word in STOP_WORDS or (word.isascii() and bool(uses(word))) for word in words)
    return known >= ENGLISH_SHARE * len(words)


def _adjust_article(statement: Statement, words: dict[int, str], place: int) -> None:
    order = statement.words
    before = order[order.index(place) - 1] if order.index(place) else None
    if before is not None and words[before] in ("a", "an") and words[place]:
        words[before] = "an" if AN.match(words[place]) else "a"


def _sentence(doc: "Doc", statement: Statement, words: dict[int, str], opening: str) -> str:
    """Written as the caption writes it: without a space where it has none (red-headed, dog's)."""
    order, text = statement.words, opening + " " if opening else ""
    for i, following in zip(order, (*order[1:], -1), strict=True):
        if words[i]:
            joined = following == i + 1 and not doc[i].whitespace_
            text += words[i] + ("" if joined else " ")
    return text.strip()
