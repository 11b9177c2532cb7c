"""Derive the lexicon's table from WordNet 3.0's dictionary files.

    apt-get install --no-install-recommends wordnet-base        # Debian: data.noun and the rest in /usr/share/wordnet
    python -m defense.language.lexicon.build /usr/share/wordnet   # writes wordnet.tsv.gz beside this

The table is gzip over ASCII text, its lines sorted by word, of two kinds (fields separated by tabs, empty ones
at the end left out):

    word  n|v|a|r  count  senses  antonyms  opposites  cohyponyms    one line per part of speech, the commonest first
    form  N|V|A|R  bases                                             an irregular form and what it is a form of

`count` is how often WordNet's tagged texts use the word so. `senses` are separated by ";", the commonest first,
each `count:synonym,synonym`; senses without synonyms are left out.

Kept: every word of WordNet that is a single word (77,000 of its 147,000 entries), tagged texts or not, with
synonyms and antonyms of any number of words. Left out: entries of several words (captions are looked up word by
word), entries with digits or other signs, slurs and obscenities (lexicon.dictionary says which), glosses,
and every relation but those above.
"""

import argparse
import gzip
from collections.abc import Iterable
from pathlib import Path

from defense.language.lexicon.dictionary import ANTONYM, NEAR, Sense, WordNet
from defense.language.lexicon.relatives import Relatives


def table(wordnet: WordNet) -> list[str]:
    """The table's lines, sorted by word; a word's parts of speech stay together, the commonest first."""
    relatives = Relatives(wordnet)
    lines = []
    for word in sorted({word for word, _ in wordnet.senses if " " not in word}):
        for letter in wordnet.letters(word):
            senses = wordnet.senses[word, letter]
            listed = [(sense.occurrences, _synonyms(wordnet, word, sense)) for sense in senses]
            fields = [
                word,
                letter,
                str(sum(sense.occurrences for sense in senses)),
                ";".join(f"{count}:{','.join(others)}" for count, others in listed if others),
                ",".join(_antonyms(wordnet, word, senses)),
                ",".join(_opposites(wordnet, word, senses[0])) if letter == "a" else "",
                ",".join(relatives.cohyponyms(word, letter)),
            ]
            lines.append("\t".join(fields).rstrip("\t"))
    for letter, forms in wordnet.irregular.items():
        for form, bases in forms:
            if known := [base for base in bases if (base, letter) in wordnet.senses and base != form]:
                lines.append(f"{form}\t{letter.upper()}\t{','.join(known)}")
    return sorted(lines, key=lambda line: line.partition("\t")[0])  # stable: keeps the order within a word


def write(lines: Iterable[str], path: Path) -> None:
    """No time and no file name in the gzip header: the bytes depend on the lines (and the zlib in use) alone."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed:
        packed.write("".join(f"{line}\n" for line in lines).encode("ascii"))


def _synonyms(wordnet: WordNet, word: str, sense: Sense) -> list[str]:
    return _unique(wordnet.synsets[sense.synset].words, word)


def _antonyms(wordnet: WordNet, word: str, senses: list[Sense]) -> list[str]:
    """What WordNet opposes to the word itself."""
    found: list[str] = []
    for sense in senses:
        words = wordnet.synsets[sense.synset].words
        for pointer in wordnet.pointers(sense.synset, ANTONYM):
            if not pointer.source_word or words[pointer.source_word - 1] == word:
                found += wordnet.target_words(pointer)
    return _unique(found, word)


def _opposites(wordnet: WordNet, word: str, sense: Sense) -> list[str]:
    """Adjectives: what WordNet opposes to a neighbour: tiny is near small, and small is opposed to large."""
    near = [pointer.target for pointer in wordnet.pointers(sense.synset, NEAR)]
    heads = [sense.synset] if wordnet.pointers(sense.synset, ANTONYM) else near
    opposed = [pointer for head in heads for pointer in wordnet.pointers(head, ANTONYM)]
    return _unique((other for pointer in opposed for other in wordnet.target_words(pointer)), word)


def _unique(words: Iterable[str], itself: str) -> list[str]:
    return [word for word in dict.fromkeys(words) if word not in ("", itself)]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Derive the lexicon's table from WordNet 3.0.")
    parser.add_argument("folder", type=Path, help="where data.noun, index.noun, noun.exc, cntlist.rev ... are")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("wordnet.tsv.gz"))
    arguments = parser.parse_args(argv)
    if not (arguments.folder / "data.noun").is_file():
        parser.error(f"no data.noun in {arguments.folder}: give the folder of WordNet 3.0's dictionary files")
    lines = table(WordNet(arguments.folder))
    write(lines, arguments.out)
    print(f"{len(lines)} lines, {arguments.out.stat().st_size} bytes: {arguments.out}")


if __name__ == "__main__":
    main()
