"""Words of the same kind and another meaning (dog: wolf, cat), from WordNet's hypernyms. Used to build the table only.

WordNet has no such relation; the rules here are ours. They aim at captions of pictures: what can be seen comes first.
"""

from collections import defaultdict
from functools import cache

from defense.lexicon.dictionary import CLASS_OF_A_NAME, DERIVED, FILES, HYPERNYM, Id, Sense, WordNet

# Topics of things one can photograph: animals, artifacts, body parts, food, objects, people, plants, substances.
VISIBLE = {"05", "06", "08", "13", "17", "18", "20", "27"}
ATTRIBUTE = "07"
VISIBLE_WEIGHT = 3  # "table" is tagged 52 times as a list and 25 times as furniture
ENOUGH = 4  # with fewer tagged siblings than this, cousins are added
MOST = 10


class Relatives:
    def __init__(self, wordnet: WordNet) -> None:
        self.wordnet = wordnet
        self.first_letter = {word: wordnet.letters(word)[0] for word, _ in wordnet.senses}
        self.meant = {key: self._meant(senses) for key, senses in wordnet.senses.items() if key[1] in "nv"}
        self.attributes: dict[str, list[Id]] = defaultdict(list)  # "red" -> the colour, spelt as its adjective is
        for (word, letter), senses in wordnet.senses.items():
            if letter == "a" and (word, "n") in wordnet.senses:
                derived = {p.target for sense in senses for p in wordnet.pointers(sense.synset, DERIVED)}
                nouns = [sense.synset for sense in wordnet.senses[word, "n"] if sense.synset in derived]
                self.attributes[word] = [noun for noun in nouns if wordnet.synsets[noun].topic == ATTRIBUTE]
        self.ancestors = cache(self._ancestors)

    def cohyponyms(self, word: str, letter: str) -> list[str]:
        """At most 10 single words, the commonest first; none for adverbs and for verbs the tagged texts never use.

        Nouns and verbs: what stands under the same hypernym as the sense most likely meant, and as the next one if at
        least half as likely. Adjectives: the same for those that are also the name of an attribute (red, blue). With
        fewer than 4 that occur in the tagged texts, cousins are added. Never a word that some sense makes a synonym,
        hypernym or hyponym; never one that mostly means something else; names only beside names.
        """
        if letter == "r" or (letter == "v" and not self.wordnet.senses[word, letter][0].count):
            return []
        meant = self.attributes[word][:2] if letter == "a" else self.meant[word, letter]
        siblings = self._siblings(meant)
        ranked = self._ranked(word, letter, siblings)
        if sum(rank[0] < 0 for rank in ranked) < ENOUGH:
            aunts = self._siblings([p.target for each in meant for p in self.wordnet.pointers(each, HYPERNYM, CLASS_OF_A_NAME)])
            cousins = [child for aunt in aunts for child in self.wordnet.children.get((HYPERNYM, aunt), [])]
            ranked = self._ranked(word, letter, siblings + aunts + cousins)
        tagged = [rank for rank in ranked if rank[0] < 0]
        return [rank[-1] for rank in (tagged if len(tagged) >= ENOUGH else ranked)[:MOST]]

    def _meant(self, senses: list[Sense]) -> list[Id]:
        weight = {s: s.count * (VISIBLE_WEIGHT if self.wordnet.synsets[s.synset].topic in VISIBLE else 1) for s in senses}
        first, *others = sorted(senses, key=lambda sense: -weight[sense])
        return [first.synset, *(s.synset for s in others[:1] if weight[s] and 2 * weight[s] >= weight[first])]

    def _siblings(self, synsets: list[Id]) -> list[Id]:
        """Under the same hypernym by the same pointer: classes beside classes, named things beside named things."""
        found: dict[Id, None] = {}
        for synset in synsets:
            for pointer in self.wordnet.pointers(synset, HYPERNYM, CLASS_OF_A_NAME):
                found.update(dict.fromkeys(self.wordnet.children[pointer.symbol, pointer.target]))
        return [synset for synset in found if synset not in synsets]

    def _ranked(self, word: str, letter: str, synsets: list[Id]) -> list[tuple[int, int, int, str]]:
        """The first fitting word of each synset, as (-count, -number of senses, length, word), sorted."""
        is_name = any(word in self.wordnet.synsets[sense.synset].names for sense in self._senses(word)[:1])
        found: dict[str, tuple[int, int, int, str]] = {}
        for synset in synsets:
            for other in self.wordnet.synsets[synset].words:
                if not other or " " in other or other in found or not self._means(other, synset, letter):
                    continue
                if (is_name or other not in self.wordnet.synsets[synset].names) and not self._are_family(word, other):
                    senses = self._senses(other)
                    count = sum(sense.count for sense in senses if sense.synset == synset)
                    found[other] = (-count, -len(senses), len(other), other)
                    break
        return sorted(found.values())

    def _means(self, word: str, synset: Id, letter: str) -> bool:
        if letter == "a":
            return synset in self.attributes.get(word, [])
        return self.first_letter[word] == letter and synset in self.meant[word, letter]

    def _senses(self, word: str) -> list[Sense]:
        return [sense for letter in FILES for sense in self.wordnet.senses.get((word, letter), [])]

    def _are_family(self, word: str, other: str) -> bool:
        """Whether some sense of one is some sense of the other, or a hypernym of it at any height."""
        ours, theirs = ({sense.synset for sense in self._senses(each)} for each in (word, other))
        above_ours, above_theirs = (frozenset().union(*map(self.ancestors, each)) for each in (ours, theirs))
        return word == other or bool(ours & theirs or ours & above_theirs or theirs & above_ours)

    def _ancestors(self, synset: Id) -> frozenset[Id]:
        parents = {pointer.target for pointer in self.wordnet.pointers(synset, HYPERNYM, CLASS_OF_A_NAME)}
        return frozenset(parents).union(*map(self.ancestors, sorted(parents)))
