"""What a parsed caption says: subjects, relations and objects, read from a spaCy dependency parse.

Labels are those of spaCy's English pipelines (ClearNLP's: nsubj, dobj, prep, pobj, ...), whoever has set them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from defense.language.negation import governed, is_denier

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

BEFORE_A_NOUN = frozenset(
    "det predet amod compound nummod poss nmod quantmod case cc conj punct advmod npadvmod neg".split()
)
SUBJECTS, OBJECTS = ("nsubj", "nsubjpass"), ("dobj", "attr", "dative")
HELPERS = frozenset("aux auxpass neg prt".split())
NAMES_OF_PICTURES = frozenset(
    "photo photograph picture image drawing painting illustration sketch shot close-up closeup up view".split()
)
PLACES = frozenset("front top side left right middle edge back bottom end center centre midst".split())
MOST_STATEMENTS = 8
MOST_WORDS = 40  # more is a heap of keywords; CLIP's tokeniser would cut it


@dataclass(frozen=True)
class Statement:
    """Indices of words in the caption, each ascending. `relation` and `object` may be empty, `subject` never.

    nouns, adjectives: the words of subject and object that a change may touch: what they are (of a group of girls the
    girls); adjectives and numbers.
    verb: the relation's main verb; preposition: its last preposition's words. Empty where there is none.
    negated: whether it says that something is not so.
    """

    subject: tuple[int, ...]
    relation: tuple[int, ...] = ()
    object: tuple[int, ...] = ()
    nouns: tuple[int, ...] = ()
    adjectives: tuple[int, ...] = ()
    verb: tuple[int, ...] = ()
    preposition: tuple[int, ...] = ()
    negated: bool = False

    @property
    def words(self) -> tuple[int, ...]:
        return self.subject + self.relation + self.object


def statements(doc: "Doc") -> tuple[Statement, ...]:
    """At most 8, each of at most 40 words, in the caption's order; if it says nothing, its first noun phrase alone.

    Verbs with a subject of their own, of the noun they describe or of the verb they are joined to; and nouns with a
    preposition. A further object is dropped, and so are adverbs, clauses and what hangs on them. Pronouns are no
    subjects ("it runs" says nothing without its sentence). "a photo of a dog" speaks of the dog.

    What a negation governs is said with the negation or not at all.
    """
    denied = governed(doc)
    made = (each for token in doc for each in (*_of_verb(token), *_of_noun(token)))
    found = [each for each in (_as_denied(each, doc, denied) for each in made) if each is not None]
    if not found:
        heads = [token for token in doc if _is_thing(token) and token.dep_ not in ("compound", "poss")]
        heads = [head for head in heads if denied.keys().isdisjoint(_span(_shown(head)))]
        heads.sort(key=lambda head: _shown(head).lower_ in NAMES_OF_PICTURES)
        heads = [_shown(head) for head in heads[:1]]
        found = [_statement(head, (), (), None) for head in heads]
    return tuple(each for each in dict.fromkeys(found) if len(each.words) <= MOST_WORDS)[:MOST_STATEMENTS]


def _as_denied(statement: Statement, doc: "Doc", denied: dict[int, frozenset[int]]) -> Statement | None:
    """The statement, marked if it denies something; None if it would assert that.

    Also None if it speaks of what is not there ("no dog on a sofa"), or if another thing stands between its subject and
    the negation, which may be said of that: "a lady and a man with no shirt".
    """
    operators = frozenset().union(*(denied.get(i, ()) for i in statement.words))
    if not operators:
        return statement
    if not operators <= set(statement.words) or not denied.keys().isdisjoint(statement.subject):
        return None
    between = range(statement.subject[-1] + 1, min(operators))
    if any(_is_thing(doc[i]) and i not in statement.words for i in between):
        return None
    return replace(statement, negated=True)


def _of_verb(verb: "Token") -> Iterator[Statement]:
    if verb.pos_ not in ("VERB", "AUX") or verb.dep_ in (*HELPERS, "xcomp", "amod", "compound", "ccomp"):
        return
    subject = _subject(verb)
    if subject is None or not _is_thing(subject):
        return
    whole = any(child.dep_ in SUBJECTS for child in verb.children)
    helpers = [child.i for child in verb.children if child.dep_ in HELPERS or _denies(child, verb)]
    group = tuple(sorted([verb.i, *helpers]))
    nouns = [child for child in verb.children if child.dep_ in OBJECTS and child.i > verb.i]
    complements = [child for child in verb.children if child.dep_ == "acomp" and child.i > verb.i]
    if nouns:
        if _is_thing(nouns[0]):
            yield _statement(subject, group, (), verb, nouns[0], whole)
    elif complements:
        yield _statement(subject, group + _span(complements[0]), (), None, None, whole, complements[:1])
    else:
        relations = [*_relations(verb)]
        for preposition, noun in relations:
            yield _statement(subject, group, preposition, verb, noun, whole)
        if not relations and verb.pos_ == "VERB" and not any(child.dep_ == "xcomp" for child in verb.children):
            yield _statement(subject, group, (), verb, None, whole)


def _of_noun(noun: "Token") -> Iterator[Statement]:
    if _is_thing(noun) and noun.dep_ not in ("compound", "poss"):
        for preposition, other in _relations(noun):
            if preposition and noun.doc[preposition[0]].lower_ != "of":
                yield _statement(_shown(noun), (), preposition, None, other)


def _denies(child: "Token", verb: "Token") -> bool:
    """Not a word that only hangs there because a rough parse knew no place for it."""
    return is_denier(child) and (child.dep_ != "dep" or abs(child.i - verb.i) == 1)


def _subject(verb: "Token", steps: int = 8) -> "Token | None":
    """Its own; the noun a participle or relative clause describes; the one of the verb it is joined to."""
    own = [child for child in verb.children if child.dep_ in SUBJECTS]
    if own:
        is_relative = verb.dep_ == "relcl" and own[0].lower_ in ("who", "that", "which")
        return _shown(verb.head) if is_relative else _shown(own[0])
    if verb.dep_ == "acl" and _is_thing(verb.head):
        return _shown(verb.head)
    if verb.dep_ in ("conj", "advcl") and verb.head.pos_ in ("VERB", "AUX") and steps and verb.head.i != verb.i:
        if verb.dep_ == "advcl" and not verb.lower_.endswith("ing"):
            return None
        return _subject(verb.head, steps - 1)
    return None


def _relations(word: "Token") -> Iterator[tuple[tuple[int, ...], "Token"]]:
    """Prepositions that hang on a word, with the noun each leads to: on, next to, out of, in front of."""
    for child in word.children:
        if child.i > word.i and (child.dep_ in ("prep", "agent") or (child.dep_ == "advmod" and _leads_on(child))):
            yield from _follow(child, (child.i,))


def _leads_on(adverb: "Token") -> bool:
    return any(child.dep_ == "prep" for child in adverb.children)


def _follow(preposition: "Token", so_far: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], "Token"]]:
    for child in preposition.children:
        if child.dep_ == "prep" and child.i > preposition.i:
            yield from _follow(child, (*so_far, child.i))
            return
        if child.dep_ == "pobj" and child.i > preposition.i:
            onward = [each for each in child.children if each.dep_ == "prep" and each.lower_ == "of"]
            if child.lower_ in PLACES and onward:
                yield from _follow(onward[0], (*so_far, *_phrase(child), onward[0].i))
            elif _is_thing(child):
                yield so_far, child
            return


def _is_thing(token: "Token") -> bool:
    return token.pos_ in ("NOUN", "PROPN")


def _shown(noun: "Token") -> "Token":
    """Of "a photo of a dog" the dog."""
    if noun.lower_ in NAMES_OF_PICTURES:
        for child in noun.children:
            if child.lower_ == "of":
                things = [each for each in child.children if each.dep_ == "pobj" and _is_thing(each)]
                if things:
                    return things[0]
    return noun


def _span(head: "Token") -> tuple[int, ...]:
    """The noun with what stands before it, and one "of" behind it (a group of girls)."""
    inner = _content(head)
    if inner.i <= head.i:
        return _phrase(head)
    return (*_phrase(head), head.i + 1, *(i for i in _phrase(inner) if i > head.i + 1))


def _phrase(head: "Token") -> tuple[int, ...]:
    """The word with what stands before it and belongs to it."""
    left = [child.left_edge.i for child in head.lefts if child.dep_ in BEFORE_A_NOUN]
    return tuple(range(min([head.i, *left]), head.i + 1))


def _content(noun: "Token") -> "Token":
    """Of "a group of girls" the girls, of "dog photo" the dog; else the noun itself."""
    if noun.lower_ in NAMES_OF_PICTURES:
        for child in noun.lefts:
            if child.dep_ == "compound" and _is_thing(child):
                return child
    for child in noun.children:
        if child.i == noun.i + 1 and child.lower_ == "of":
            for other in child.children:
                if other.dep_ == "pobj" and _is_thing(other) and other.i > child.i:
                    return other
    return noun


def _whole(head: "Token") -> tuple[int, ...]:
    """With all that is joined to it: a boy and a girl (a verb agrees with both)."""
    joined = [child for child in head.children if child.dep_ == "conj" and child.i > head.i and _is_thing(child)]
    if not joined:
        return _span(head)
    links = [child.i for child in (*head.children, *joined[0].children) if child.dep_ == "cc" or child.text == ","]
    between = (
        tuple(i for i in links if head.i < i < joined[0].i)
        or tuple(token.i for token in head.doc[head.i + 1 : joined[0].left_edge.i] if token.pos_ == "CCONJ")[:1]
    )
    return _span(head) + between + _whole(joined[0])


def _statement(
    subject: "Token",
    group: tuple[int, ...],
    preposition: tuple[int, ...],
    verb: "Token | None",
    other: "Token | None" = None,
    whole: bool = False,
    complements: "list[Token] | None" = None,
) -> Statement:
    doc = subject.doc
    first = _whole(subject) if whole else _span(subject)
    second = _span(other) if other is not None else ()
    phrase = set(first + second) | {each.i for each in complements or []}
    return Statement(
        subject=first,
        relation=group + preposition,
        object=second,
        nouns=tuple(sorted({_content(noun).i for noun in (subject, other) if noun is not None})),
        adjectives=tuple(i for i in sorted(phrase) if doc[i].pos_ in ("ADJ", "NUM")),
        verb=(verb.i,) if verb is not None and verb.pos_ == "VERB" else (),
        preposition=preposition,
    )
