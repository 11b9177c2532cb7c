"""What a caption denies: the words that a negation governs, which nobody may assert without it.

Read from a parse like defense.language.statements, whoever made it. A parse may put a negation in the wrong place, so
the words behind it count as well, up to where its clause or list ends. Rather too many words than too few: a statement
that is not made costs little, a false one teaches the opposite.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

# What is said of a verb: it denies the verb and all that hangs on it, but not its subject.
OF_VERBS = frozenset("not n't nt never nor hardly barely scarcely rarely seldom nowhere cannot".split())
# What is said of a noun, or stands for one; as a subject it denies the verb as well.
OF_NOUNS = frozenset("no neither none nobody nothing noone".split())
# Words that say themselves that what follows is not there, or does not happen.
OF_WHAT_FOLLOWS = frozenset(
    "without w/o sans minus except excluding lack lacks lacked lacking missing avoid avoids avoided avoiding"
    " unlike absent".split()
)
PAIRS_OF_WHAT_FOLLOWS = {
    "of": frozenset("free devoid void empty bare clear instead none".split()),
    "than": frozenset(("rather",)),
    "to": frozenset(
        "unable fail fails failed failing refuse refuses refused refusing forget forgets forgot forgetting yet".split()
    ),
    "from": frozenset("absent free missing".split()),
}
SUBJECTS = ("nsubj", "nsubjpass", "csubj", "expl")
ENDS = frozenset(", . ; : ! ? ( ) -- but".split())
LISTED = frozenset("DET ADJ NUM NOUN PROPN ADV CCONJ".split())
VERBS = ("VERB", "AUX")


def is_denier(token: "Token") -> bool:
    """Whether it denies the verb that it belongs to: not, n't, never, hardly."""
    return _plain(token) in OF_VERBS


def is_negation(token: "Token") -> bool:
    """Whether it is one word that denies, of whatever kind."""
    return any(_plain(token) in words for words in (OF_VERBS, OF_NOUNS, OF_WHAT_FOLLOWS))


def governed(doc: "Doc") -> dict[int, frozenset[int]]:
    """The index of every word that a negation governs -> the indices of the words that deny it."""
    found: dict[int, frozenset[int]] = {}
    for operator, words in _scopes(doc):
        for i in words - operator:
            found[i] = found.get(i, frozenset()) | operator
    return found


def _scopes(doc: "Doc") -> Iterator[tuple[frozenset[int], set[int]]]:
    """Every negation: its own words, and those that it governs."""
    for token in doc:
        word, operator = _plain(token), frozenset((token.i,))
        following = doc[token.i + 1] if token.i + 1 < len(doc) else None
        after = _plain(following) if following is not None else ""
        if word == "no" and following is not None and after in ("longer", "more"):
            yield operator | {following.i}, _clause(token) | _below_verb(_verb_above(token))
        elif word in OF_VERBS:
            is_placed = token.dep_ not in ("dep", "ROOT", "cc")
            yield operator, _clause(token) | (_below_verb(token.head) if is_placed else set())
        elif word in OF_NOUNS:
            yield operator, _list(token) | _below_noun(token, after)
        elif word in OF_WHAT_FOLLOWS and (word != "lack" or after == "of" or token.pos_ == "VERB"):
            yield operator, _follows(token) | _below(token)
        elif following is not None and word in PAIRS_OF_WHAT_FOLLOWS.get(after, ()):
            yield operator | {following.i}, _follows(following) | _below(token) | _below(following)


def _plain(token: "Token") -> str:
    return token.lower_.replace("\u2019", "'")


def _below(token: "Token") -> set[int]:
    """All that hangs on a word but its subject; not on a word that merely came out as the root of a rough parse."""
    if token.dep_ in ("dep", "ROOT") and token.pos_ not in VERBS:
        return set()
    return _below_verb(token) - {token.i}


def _below_verb(verb: "Token | None") -> set[int]:
    """A verb (or what else is denied) and all that hangs on it, but its subject and clauses of their own."""
    if verb is None:
        return set()
    found = {verb.i}
    for child in verb.children:
        own_clause = child.dep_ in ("advcl", "parataxis", "relcl") and child.pos_ in VERBS
        before = child.i < verb.i and child.dep_ not in ("aux", "auxpass", "advmod", "neg", "prt", "cc", "preconj")
        if before or child.dep_ in (*SUBJECTS, "dep") or own_clause or (child.dep_ == "conj" and _stands_alone(child)):
            continue
        found |= {each.i for each in child.subtree}
    return found


def _stands_alone(verb: "Token") -> bool:
    """Whether a joined verb is no longer denied: "is not smiling and holds a cup", but not "... and holding"."""
    joined_by_or = any(_plain(child) in ("or", "nor") for child in verb.head.children if child.dep_ == "cc")
    has_its_own = any(child.dep_ in ("aux", "auxpass", *SUBJECTS) for child in verb.children)
    return verb.pos_ in VERBS and not joined_by_or and (has_its_own or not verb.lower_.endswith("ing"))


def _below_noun(token: "Token", after: str) -> set[int]:
    """Of "no dog" and "nobody", with what hangs on them; and the verb whose subject they are."""
    noun = token.head if token.dep_ in ("det", "neg", "preconj", "advmod", "cc") else token
    if token.dep_ == "dep":
        noun = token.doc[token.i + 1] if after == "one" else token
    found = {each.i for each in noun.subtree} if noun is not token or token.dep_ != "ROOT" else {noun.i}
    first = noun
    while first.dep_ == "conj" and first.head.i != first.i:
        first = first.head
    return found | (_below_verb(first.head) if first.dep_ in SUBJECTS else set())


def _verb_above(token: "Token") -> "Token | None":
    """The nearest verb that a word hangs on."""
    for above in token.ancestors:
        if above.pos_ in VERBS:
            return above
    return None


def _clause(token: "Token") -> set[int]:
    """The words behind it to the end of its clause: a comma, a conjunction, another verb that may be a main one."""
    found: set[int] = set()
    main = False  # whether its own verb has passed
    for each in token.doc[token.i + 1 :]:
        following = each.nbor() if each.i + 1 < len(token.doc) else None
        joins = _plain(each) in ("and", "&") and following is not None and _could_be_main(following)
        if _plain(each) in ENDS or each.pos_ == "SCONJ" or joins or (main and _could_be_main(each)):
            break
        main = main or each.pos_ not in ("ADV", "AUX")
        found.add(each.i)
    return found


def _could_be_main(token: "Token") -> bool:
    """Whether a clause may have it for its verb; not one that another leads to (to ride, riding, is seen)."""
    is_led_to = _plain(token.nbor(-1)) in ("to", "or", "nor") or token.lower_.endswith(("ing", "ed", "en"))
    return token.pos_ == "AUX" or (token.pos_ == "VERB" and not is_led_to)


def _list(token: "Token") -> set[int]:
    """The noun behind it, and those that share it: no shirt or shoes, no hat and shoes, but not "and a hat"."""
    words: list[Token] = []
    for each in token.doc[token.i + 1 :]:
        if each.pos_ not in LISTED and each.text not in (",", "-"):
            break
        words.append(each)
    if any(_plain(each) in ("or", "nor") for each in words):
        return {each.i for each in words}
    for place, each in enumerate(words):
        following = words[place + 1].pos_ if place + 1 < len(words) else ""
        if each.text == "," or (_plain(each) in ("and", "&") and following in ("DET", "NUM")):
            words = words[:place]
            break
    return {each.i for each in words}


def _follows(token: "Token") -> set[int]:
    """What a word like "without" or "lacks" speaks of: up to a preposition, or a verb that it does not lead to."""
    found: set[int] = set()
    for each in token.doc[token.i + 1 :]:
        leads_on = each.pos_ in VERBS and (each.lower_.endswith("ing") or _plain(each.nbor(-1)) == "to" or not found)
        if _plain(each) in ENDS - {","} or each.pos_ in ("SCONJ", "AUX") or (each.pos_ == "VERB" and not leads_on):
            break
        if each.pos_ == "ADP" and _plain(each) not in ("of", "to"):
            break
        if each.text == "," and not any(_plain(other) in ("or", "nor") for other in token.doc[each.i :]):
            break
        found.add(each.i)
    return found
