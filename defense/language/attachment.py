"""Which word depends on which, from parts of speech alone: a shallow stand-in for a trained dependency parser.

Reads a caption left to right in phrases: noun phrases, verb groups, prepositions. Labels are those of spaCy's English
pipelines (nsubj, dobj, prep, pobj, acl, ...), so that one reader serves both. Rules, all of them rough: the first free
noun phrase of a clause is its subject; what follows a verb is its object; a preposition belongs to the verb, before
there is one to the subject; "of", and what follows "with a stick", to the noun in front of it; a participle without
auxiliary describes the noun (or, after an object of a preposition, what the subject does besides).
"""

from collections.abc import Sequence

NOUNS = ("NOUN", "PROPN")
PREMODIFIERS = ("DET", "ADJ", "NUM")
LABELS = {"DET": "det", "ADJ": "amod", "NUM": "nummod", "NOUN": "compound", "PROPN": "compound", "ADV": "advmod",
          "CCONJ": "cc", "PUNCT": "punct"}  # fmt: skip
OWNERS = frozenset("my your his her its our their whose".split())
COPULAS = frozenset("am is are was were be been being 're 'm".split())
NEGATIONS = frozenset("not n't n\u2019t nt never hardly barely scarcely rarely seldom".split())
RELATIVES = frozenset("who which that".split())


def attach(words: Sequence[str], tags: Sequence[str]) -> tuple[list[int], list[str]]:
    """For every word the index of its head (its own for a root) and the label. Both as long as `words`, never cyclic.

    tags: parts of speech of Universal Dependencies.
    """
    return _Reader([word.lower() for word in words], list(tags)).read()


class _Reader:
    def __init__(self, words: list[str], tags: list[str]) -> None:
        self.words, self.tags = words, tags
        self.heads: list[int | None] = [None] * len(words)
        self.labels = ["dep"] * len(words)
        self.root: int | None = None
        self.new_clause()

    def new_clause(self) -> None:
        self.subject: int | None = None  # a noun that waits for its verb, or has it
        self.verb: int | None = None
        self.finite = False  # whether the clause has its main verb
        self.noun: int | None = None  # the last noun phrase
        self.noun_role = ""
        self.preposition: int | None = None  # waits for its object
        self.pronoun: int | None = None  # who, which: waits for its verb
        self.joined = False  # "and" came last
        self.comma = False
        self.link = "conj"  # how a further clause hangs on the first

    def read(self) -> tuple[list[int], list[str]]:
        place = 0
        while place < len(self.words):
            place = self.noun_phrase(place) or self.verb_group(place) or self.single(place)
        if self.root is None:
            free = [i for i, head in enumerate(self.heads) if head is None and self.tags[i] in NOUNS]
            self.root = free[0] if free else 0
        heads = [self.root if head is None else head for head in self.heads]
        if heads:
            heads[self.root], self.labels[self.root] = self.root, "ROOT"
        return heads, self.labels

    def put(self, place: int, head: int, label: str) -> None:
        """A word keeps its first head; nothing is put below itself."""
        above: int | None = head
        while above is not None:
            if above == place:
                return
            above = self.heads[above] if self.heads[above] != above else None
        if self.heads[place] is None and place != self.root:
            self.heads[place], self.labels[place] = head, label

    def is_modifier(self, place: int) -> bool:
        """Whether the word at `place` stands before a noun: also "and" or a comma between two adjectives."""
        tags, last = self.tags, len(self.words) - 1
        if tags[place] in PREMODIFIERS:
            return True
        if place == last:
            return False
        if tags[place] == "ADV":
            return tags[place + 1] in ("ADJ", "NUM")
        if self.words[place] == "-" and place > 0 and tags[place - 1] == "ADJ":  # red-headed
            return True
        between = ("and", ",", "&")
        if self.words[place] not in between:
            return False
        before, after = place, place
        while before >= 0 and self.words[before] in between:
            before -= 1
        while after <= last and self.words[after] in between:
            after += 1
        return before >= 0 and after <= last and tags[before] == tags[after] == "ADJ"

    def noun_phrase(self, start: int) -> int | None:
        place = start
        owners = []
        while True:
            while place < len(self.words) and self.is_modifier(place):
                place += 1
            first = place
            while place < len(self.words) and self.tags[place] in NOUNS:
                place += 1
            if place == first:
                return None
            if place + 1 < len(self.words) and self.words[place] in ("'s", "\u2019s", "'"):
                owners.append((place - 1, place))
                place += 1
                continue
            break
        head = place - 1
        for owner, mark in owners:
            self.put(owner, head, "poss")
            self.put(mark, owner, "case")
        edge = start
        for word in range(start, head):
            nearest = next((owner for owner, mark in owners if word < owner), head)
            label = "poss" if self.words[word] in OWNERS else LABELS.get(self.tags[word], "dep")
            self.put(word, nearest, label)
        self.place_noun(head, edge, place)
        return place

    def place_noun(self, head: int, start: int, after: int) -> None:
        if self.preposition is not None:
            self.put(head, self.preposition, "pobj")
            self.noun, self.noun_role = head, "pobj"
        elif self.joined and self.noun is not None and not (self.finite and self.verb_starts(after)):
            self.put(head, self.noun, "conj")
            self.noun_role = self.noun_role or "conj"
        elif self.verb is not None and self.noun is None and not self.comma and not self.joined:
            self.put(head, self.verb, "attr" if self.words[self.verb] in COPULAS else "dobj")
            self.noun, self.noun_role = head, "dobj"
        elif self.verb is None and self.subject is not None:
            self.put(head, self.subject, "conj")  # a list: what follows is said of its first
        else:
            self.subject, self.verb, self.finite, self.noun, self.noun_role = head, None, False, head, "free"
        self.preposition, self.joined, self.comma = None, False, False

    def verb_starts(self, place: int) -> bool:
        return place < len(self.tags) and (
            self.tags[place] == "AUX" or (self.tags[place] == "VERB" and not self.words[place].endswith("ing"))
        )

    def verb_group(self, start: int) -> int | None:
        negated = (  # who never smiles
            self.words[start] in NEGATIONS and self.tags[start] in ("ADV", "PART") and start + 1 < len(self.tags)
        )
        if self.tags[start + negated] not in ("AUX", "VERB"):
            return None
        place = start
        while place < len(self.words) and self.tags[place] in ("AUX", "ADV", "PART"):
            place += 1
        if place < len(self.words) and self.tags[place] == "VERB":
            verb = place
        else:
            verb = place = max(i for i in range(start, place) if self.tags[i] == "AUX")
        helpers = range(start, verb)
        participle = self.words[verb].endswith(("ed", "en")) and any(self.words[i] in COPULAS for i in helpers)
        for helper in helpers:
            label = "neg" if self.words[helper] in NEGATIONS else "aux" if self.tags[helper] == "AUX" else "advmod"
            self.put(helper, verb, "auxpass" if label == "aux" and participle else label)
        has_auxiliary = any(self.tags[i] == "AUX" for i in range(start, verb + 1))
        finite = has_auxiliary or self.is_finite(verb)
        self.place_verb(verb, finite, "nsubjpass" if participle else "nsubj")
        self.verb, self.noun, self.noun_role = verb, None, ""
        self.finite = self.finite or finite
        self.preposition, self.joined, self.comma = None, False, False
        return place + 1

    def is_finite(self, verb: int) -> bool:
        following = self.tags[verb + 1] if verb + 1 < len(self.tags) else ""
        if self.words[verb].endswith("ing"):
            return False
        return not (self.words[verb].endswith(("ed", "wn")) and self.noun is not None and following == "ADP")

    def place_verb(self, verb: int, finite: bool, subject_label: str) -> None:
        if self.pronoun is not None and self.noun is not None:
            self.put(verb, self.noun, "relcl")
            self.put(self.pronoun, verb, subject_label)
            self.pronoun = None
        elif finite and self.verb is None and self.subject is not None:
            self.clause(verb)
            self.put(self.subject, verb, subject_label)
        elif finite and self.root is not None and self.labels_is_verb(self.root) and self.joined:
            self.put(verb, self.root, "conj")
        elif finite and self.subject is not None and self.root is None:  # a man sitting on a bench smiles
            self.clause(verb)
            self.put(self.subject, verb, subject_label)
        elif self.verb is None and self.noun is not None:
            self.put(verb, self.subject if self.subject is not None else self.noun, "acl")
        elif self.verb is not None:
            described = self.noun if not self.comma else None
            is_object = self.noun_role == "dobj" and self.labels[self.verb] != "acl"
            if described is not None and (is_object or self.follows_with()):  # with its tongue hanging out
                self.put(verb, described, "acl")
            elif self.labels[self.verb] == "acl" and self.subject is not None:
                self.put(verb, self.subject, "acl")
            else:
                self.put(verb, self.verb, "conj" if self.joined else "advcl")
        elif self.root is not None:
            self.put(verb, self.root, "advcl")

    def labels_is_verb(self, place: int) -> bool:
        return self.tags[place] in ("VERB", "AUX")

    def clause(self, verb: int) -> None:
        if self.root is None:
            self.root = verb
        else:
            self.put(verb, self.root, self.link)

    def single(self, place: int) -> int:
        word, tag = self.words[place], self.tags[place]
        following = self.tags[place + 1] if place + 1 < len(self.tags) else ""
        if tag == "ADP" or (tag == "ADV" and following == "ADP" and self.words[place + 1] == "to"):
            self.place_preposition(place, "prep" if tag == "ADP" else "advmod")
            return place + 1
        if tag == "PRON" and word in RELATIVES and self.noun is not None:
            self.pronoun = place
        elif tag == "PRON":
            self.place_noun(place, place, place + 1)
        elif tag == "SCONJ":
            self.new_clause_after("advcl")
        elif tag == "CCONJ":
            self.joined = True
        elif tag == "PUNCT":
            if word in ".!?;":
                self.new_clause_after("parataxis")
            self.comma, self.preposition = True, None
        elif tag == "ADJ" and self.verb is not None and self.words[self.verb] in COPULAS and self.noun is None:
            self.put(place, self.verb, "acomp")
        elif word in NEGATIONS and self.verb is not None and self.verb == place - 1:  # is not on a leash
            self.put(place, self.verb, "neg")
        elif tag == "ADV" and self.verb is not None:
            self.put(place, self.verb, "advmod")
        if tag not in ("CCONJ", "ADV") and tag != "PUNCT":
            self.joined = False
        return place + 1

    def new_clause_after(self, link: str) -> None:
        """The verb before stays within reach: "smiles while standing" has one subject."""
        verb = self.verb
        self.new_clause()
        self.verb, self.link = verb, link
        self.comma = True

    def follows_with(self) -> bool:
        """Whether the last noun is the object of "with"."""
        above = self.heads[self.noun] if self.noun is not None else None
        return above is not None and self.words[above] == "with"

    def place_preposition(self, place: int, label: str) -> None:
        if self.preposition is not None and self.preposition == place - 1:  # out of, next to
            head: int | None = self.preposition
        elif self.words[place] == "of" or (self.noun_role == "pobj" and self.follows_with()):
            head = self.noun if self.noun is not None else self.verb  # with a stick in its mouth
        elif self.verb is None:
            head = self.subject if self.subject is not None else self.noun
        else:
            head = self.verb
        if head is not None:
            self.put(place, head, label)
        self.preposition, self.comma = place, False
        self.joined = False
