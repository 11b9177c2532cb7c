"""Read WordNet 3.0's dictionary files (data.noun, index.noun, noun.exc, ..., cntlist.rev) into maps.

Their layout is in the manual pages wndb(5WN), senseidx(5WN), cntlist(5WN). Words come out in lower-case letters and
single spaces: "_" and "-" become a space, apostrophes and full stops vanish; what cannot be written so is left out.
So are the senses that WordNet itself marks as slurs or obscenities, and words that mostly have such senses are given
for no other word: a synonym drawn at random ends up in training captions. Used to build the table only.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
LETTER_OF_SENSE_TYPE = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}  # 5: an adjective that is near another
HYPERNYM, CLASS_OF_A_NAME, ANTONYM, NEAR, DERIVED, USAGE = "@", "@i", "!", "&", "+", ";u"
OFFENSIVE_USAGE = {"06717170", "06718862", "07124340"}  # disparagement, ethnic slur, obscenity
OFFENSIVE_GLOSS = re.compile(r"ethnic slur|(obscene|offensive|vulgar)( slang| terms?| names?| words?) for")

Id = tuple[str, str]  # a synset: part of speech, offset


class Pointer(NamedTuple):
    symbol: str
    target: Id
    source_word: int  # from 1; 0: the whole synset
    target_word: int


class Synset(NamedTuple):
    topic: str  # number of the lexicographer's file: "05" animals, "06" artifacts, "07" attributes ...
    words: tuple[str, ...]  # cleaned; "" where a word is left out
    names: frozenset[str]  # those written with a capital
    pointers: tuple[Pointer, ...]


class Sense(NamedTuple):
    occurrences: int  # how often WordNet's tagged texts use the word so
    number: int  # WordNet's own rank of the sense within the part of speech
    synset: Id


class WordNet:
    """`synsets` by id, `senses` of a (word, part of speech) with the commonest first, `children` of a
    (pointer symbol, hypernym), `irregular` forms of a part of speech as (form, bases)."""

    def __init__(self, folder: Path) -> None:
        self.synsets: dict[Id, Synset] = {}
        offensive: set[Id] = set()
        for letter, name in FILES.items():
            for line in _lines(folder / f"data.{name}"):
                synset_id, synset, gloss = _parse_synset(letter, line)
                self.synsets[synset_id] = synset
                if OFFENSIVE_GLOSS.search(gloss) or any(
                    _marks_offence(p) and not p.source_word for p in synset.pointers
                ):
                    offensive.add(synset_id)
        self.senses: dict[tuple[str, str], list[Sense]] = defaultdict(list)
        counts = dict(_sense_counts(folder / "cntlist.rev"))
        for letter, name in FILES.items():
            for line in _lines(folder / f"index.{name}"):
                lemma, *_ = fields = line.split()
                for number, offset in enumerate(fields[-int(fields[2]) :], 1):
                    if word := clean(lemma):
                        count = counts.get((lemma, letter, number), 0)
                        self.senses[word, letter].append(Sense(count, number, (letter, offset)))
        for senses in self.senses.values():
            senses.sort(key=lambda sense: (-sense.occurrences, sense.number))
        self._forget(offensive)
        self.children: dict[tuple[str, Id], list[Id]] = defaultdict(list)
        for synset_id in self.synsets:
            for pointer in self.pointers(synset_id, HYPERNYM, CLASS_OF_A_NAME):
                self.children[pointer.symbol, pointer.target].append(synset_id)
        self.irregular = {letter: list(_irregular_forms(folder / f"{name}.exc")) for letter, name in FILES.items()}

    def _forget(self, offensive: set[Id]) -> None:
        """Drop those synsets, and from all others the words that mean them first or half the time or are marked."""
        dropped = set()
        for (word, letter), senses in self.senses.items():
            num_offensive = sum(sense.synset in offensive for sense in senses)
            if letter == "n" and (senses[0].synset in offensive or 2 * num_offensive >= len(senses)):
                dropped.add(word)
        for synset in self.synsets.values():
            dropped |= {synset.words[p.source_word - 1] for p in synset.pointers if p.source_word and _marks_offence(p)}
        for synset_id, synset in self.synsets.items():
            words = tuple("" if word in dropped or synset_id in offensive else word for word in synset.words)
            self.synsets[synset_id] = synset._replace(words=words)
        kept = {key: [s for s in senses if s.synset not in offensive] for key, senses in self.senses.items()}
        self.senses = {key: senses for key, senses in kept.items() if senses}

    def pointers(self, synset_id: Id, *symbols: str) -> list[Pointer]:
        return [pointer for pointer in self.synsets[synset_id].pointers if pointer.symbol in symbols]

    def target_words(self, pointer: Pointer) -> tuple[str, ...]:
        words = self.synsets[pointer.target].words
        return words[pointer.target_word - 1 : pointer.target_word] if pointer.target_word else words

    def letters(self, word: str) -> list[str]:
        """The parts of speech of a word, the commonest first; where the texts do not tell, that of most senses."""
        known = {letter: self.senses[word, letter] for letter in FILES if (word, letter) in self.senses}
        return sorted(known, key=lambda letter: (-sum(s.occurrences for s in known[letter]), -len(known[letter])))


def clean(word: str) -> str:
    """A lemma in lower-case letters and single spaces, or "" where it cannot be written so."""
    word = re.sub(r"\((a|p|ip)\)$", "", word).lower()  # adjectives may carry their position: "outback(a)"
    word = re.sub(r"['.]", "", re.sub(r"[_-]", " ", word)).strip()
    return word if re.fullmatch(r"[a-z]+( [a-z]+)*", word) else ""


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="ascii") as lines:
        yield from (line for line in lines if not line.startswith(" "))  # the licence stands indented on top


def _parse_synset(letter: str, line: str) -> tuple[Id, Synset, str]:
    head, _, gloss = line.partition("|")
    fields = head.split()
    first_pointer = 5 + 2 * int(fields[3], 16)
    lemmas = fields[4 : first_pointer - 1 : 2]
    pointers = []
    for i in range(first_pointer, first_pointer + 4 * int(fields[first_pointer - 1]), 4):
        symbol, offset, target_letter, between = fields[i : i + 4]
        pointers.append(Pointer(symbol, (target_letter, offset), int(between[:2], 16), int(between[2:], 16)))
    names = frozenset(clean(lemma) for lemma in lemmas if lemma[0].isupper())
    return (letter, fields[0]), Synset(fields[1], tuple(map(clean, lemmas)), names, tuple(pointers)), gloss


def _marks_offence(pointer: Pointer) -> bool:
    return pointer.symbol == USAGE and pointer.target[1] in OFFENSIVE_USAGE


def _sense_counts(path: Path) -> Iterator[tuple[tuple[str, str, int], int]]:
    for line in _lines(path):
        key, number, count = line.split()
        lemma, _, rest = key.partition("%")
        yield (lemma, LETTER_OF_SENSE_TYPE[rest[0]], int(number)), int(count)


def _irregular_forms(path: Path) -> Iterator[tuple[str, list[str]]]:
    for line in _lines(path):
        form, *bases = map(clean, line.split())
        if form and " " not in form:
            yield form, [base for base in bases if base and " " not in base]
