"""Words of the same kind and another meaning (cat: dog, wolf), from WordNet's hypernyms. Used to build the table only.

WordNet has no such relation; the rules here are ours. They aim at captions of images: what can be seen comes first.
"""

from collections import defaultdict
from functools import cache

from defense.language.lexicon.dictionary import CLASS_OF_A_NAME, DERIVED, HYPERNYM, Id, Pointer, Sense, WordNet

ATTRIBUTE, PERSON = "07", "18"
# Topics of things one can photograph: animals, artifacts, body parts, food, objects, people, plants, substances.
VISIBLE = {"05", "06", "08", "13", "17", PERSON, "20", "27"}
VISIBLE_WEIGHT = 3  # "table" is tagged 52 times as a list and 25 times as furniture
ENOUGH = 4  # with fewer tagged siblings than this, cousins are added
MOST = 8

Group = tuple[str, Id]  # what stands under a hypernym by a pointer symbol
Candidate = tuple[int, int, int, str, Id]  # -occurrences, -number of senses, length, word, synset


class Relatives:
    def __init__(self, wordnet: WordNet) -> None:
        self.wordnet = wordnet
        self.first_letter = {word: wordnet.letters(word)[0] for word, _ in wordnet.senses}
        self.own: dict[str, set[Id]] = defaultdict(set)  # the synsets of a word, as any part of speech
        self.meant: dict[tuple[str, str], list[Id]] = {}  # those most likely meant, one or two
        for (word, letter), senses in wordnet.senses.items():
            self.own[word].update(sense.synset for sense in senses)
            self.meant[word, letter] = self._attributes(word, senses) if letter == "a" else self._meant(senses)
        self.pool = cache(self._pool)
        self.ancestors = cache(self._ancestors)
        self.above = cache(lambda word: frozenset[Id]().union(*map(self.ancestors, self.own[word])))

    def cohyponyms(self, word: str, letter: str) -> list[str]:
        """At most 8 single words, siblings before cousins, the commonest first; none for adverbs.

        Nouns and verbs: what stands under the same hypernym as the sense most likely meant, and as the next one if at
        least half as likely; verbs only where the word is mostly a verb. Adjectives: the same for those that are also
        the name of an attribute (red, blue). With fewer than 4 siblings that occur in the tagged texts, those cousins
        and aunts that do follow, and where that is too few still, the other siblings.
        Never a word that some sense makes a synonym, hypernym or hyponym; never one that mostly means something else or
        is mostly of another part of speech than `word`; names only beside names, and never groups of people.
        """
        if letter == "r" or (letter == "v" and self.first_letter[word] != "v"):
            return []
        meant = self.meant[word, letter]
        siblings = self._ranked(word, letter, self._groups(meant), with_nieces=False)
        found = [other for count, other in siblings if count]
        if len(found) < ENOUGH:
            parents = [pointer.target for each in meant for pointer in self._up(each)[:1]]
            cousins = self._ranked(word, letter, self._groups(parents), with_nieces=True)
            found += [other for count, other in cousins if count and other not in found]
        if len(found) < ENOUGH:
            found += [other for count, other in siblings if not count]
        return found[:MOST]

    def _meant(self, senses: list[Sense]) -> list[Id]:
        weight = {}
        for sense in senses:
            is_name = bool(self.wordnet.pointers(sense.synset, CLASS_OF_A_NAME))
            visible = self.wordnet.synsets[sense.synset].topic in VISIBLE and not is_name
            weight[sense] = sense.occurrences * (VISIBLE_WEIGHT if visible else 1)
        first, *others = sorted(senses, key=lambda sense: -weight[sense])
        return [first.synset, *(s.synset for s in others[:1] if weight[s] and 2 * weight[s] >= weight[first])]

    def _attributes(self, word: str, senses: list[Sense]) -> list[Id]:
        """The attributes that an adjective is derived from and spelt like: the colour red."""
        derived = {pointer.target for sense in senses for pointer in self.wordnet.pointers(sense.synset, DERIVED)}
        nouns = [sense.synset for sense in self.wordnet.senses.get((word, "n"), []) if sense.synset in derived]
        return [noun for noun in nouns if self.wordnet.synsets[noun].topic == ATTRIBUTE]

    def _up(self, synset: Id) -> list[Pointer]:
        return self.wordnet.pointers(synset, HYPERNYM, CLASS_OF_A_NAME)

    def _groups(self, synsets: list[Id]) -> tuple[Group, ...]:
        """What they stand under, and by which pointer: classes go beside classes, named things beside named things."""
        return tuple(dict.fromkeys((p.symbol, p.target) for synset in synsets for p in self._up(synset)))

    def _ranked(self, word: str, letter: str, groups: tuple[Group, ...], with_nieces: bool) -> list[tuple[int, str]]:
        """The first of the pool that fit, one a synset, with their occurrences in that sense."""
        is_name = any(self._is_name(word, synset) for synset in self.meant[word, letter][:1])
        found: dict[str, int] = {}
        used: set[Id] = set()
        for minus_occurrences, *_, other, synset in self.pool(groups, with_nieces, letter, self.first_letter[word]):
            named = other in self.wordnet.synsets[synset].names
            if synset in used or other in found or (named and not is_name) or self._are_family(word, other):
                continue
            found[other] = -minus_occurrences
            used.add(synset)
            if len(found) == MOST:
                break
        return [(occurrences, other) for other, occurrences in found.items()]

    def _pool(self, groups: tuple[Group, ...], with_nieces: bool, letter: str, first_letter: str) -> list[Candidate]:
        """All that may be offered from these groups to words of this kind, the commonest first; then more senses first.

        Single words that mostly mean the synset, as that part of speech; attributes may mean a thing too (orange).
        """
        synsets = [synset for group in groups for synset in self.wordnet.children[group]]
        if with_nieces:
            synsets += [niece for each in synsets for niece in self.wordnet.children.get((HYPERNYM, each), [])]
        candidates = []
        for synset in dict.fromkeys(synsets):
            for word in filter(None, self.wordnet.synsets[synset].words):
                mostly_so = letter == "a" or self.first_letter.get(word) == first_letter
                if " " not in word and mostly_so and synset in self.meant.get((word, letter), []):
                    senses = self.wordnet.senses[word, "n" if letter == "a" else letter]
                    occurrences = sum(sense.occurrences for sense in senses if sense.synset == synset)
                    candidates.append((-occurrences, -len(self.own[word]), len(word), word, synset))
        return sorted(candidates)

    def _is_name(self, word: str, synset: Id) -> bool:
        one_of_a_kind = bool(self.wordnet.pointers(synset, CLASS_OF_A_NAME))
        named = word in self.wordnet.synsets[synset].names
        return named and (one_of_a_kind or self.wordnet.synsets[synset].topic != PERSON)

    def _are_family(self, word: str, other: str) -> bool:
        """Whether some sense of one is some sense of the other, or a hypernym of it at any height."""
        ours, theirs = self.own[word], self.own[other]
        return not (
            ours.isdisjoint(theirs) and ours.isdisjoint(self.above(other)) and theirs.isdisjoint(self.above(word))
        )

    def _ancestors(self, synset: Id) -> frozenset[Id]:
        parents = frozenset(pointer.target for pointer in self._up(synset))
        return parents.union(*map(self.ancestors, parents))
