"""The shipped table is sound, answers as a dictionary would, and is what build.py makes of WordNet's files."""

import gzip
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from defense.language import lexicon
from defense.language.lexicon import antonyms, build, cohyponyms, opposites, part_of_speech, synonyms
from defense.language.lexicon.dictionary import WordNet

ROOT = Path(__file__).parents[2]
LISTS = ("synonyms", "antonyms", "opposites", "cohyponyms")


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, dict[str, list[str]]]]:
    """Every line about a word (not an irregular form): word, letter, and its lists."""
    found = []
    for word, letter, *fields in (line.split("\t") for line in lexicon._table()):
        if letter.islower():
            _, senses, *lists = fields + [""] * (5 - len(fields))
            words = [other for sense in senses.split(";") if sense for other in sense.partition(":")[2].split(",")]
            split = [words, *(each.split(",") if each else [] for each in lists)]
            found.append((word, letter, dict(zip(LISTS, split, strict=True))))
    return found


def test_the_table_is_small_and_sorted_by_word():
    assert Path(lexicon.__file__).with_name("wordnet.tsv.gz").stat().st_size < 3_000_000
    words = [line.partition("\t")[0] for line in lexicon._table()]
    assert words == sorted(words) and len(set(words)) > 75_000


def test_every_word_of_the_table_is_in_lower_case_letters(rows):
    letters = set("abcdefghijklmnopqrstuvwxyz")
    assert all(set(word) <= letters for word, _, _ in rows)
    assert all(each.replace(" ", "").isalpha() and each.isascii() and each.islower() and each == " ".join(each.split())
               for _, _, lists in rows for every in lists.values() for each in every)  # fmt: skip


def test_no_word_is_its_own_synonym_antonym_or_cohyponym(rows):
    assert not [word for word, _, lists in rows for every in lists.values() if word in every]


def held(rows, kind: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for word, _, lists in rows:
        found[word].update(lists[kind])
    return found


def one_way(relation: dict[str, set[str]]) -> set[tuple[str, str]]:
    return {(word, other) for word in relation for other in relation[word]
            if " " not in other and word not in relation.get(other, ())}  # fmt: skip


def test_antonyms_are_symmetric_but_for_the_five_pointers_that_wordnet_itself_lacks(rows):
    antonyms_of = held(rows, "antonyms")
    assert sum(map(len, antonyms_of.values())) > 5_000
    assert one_way(antonyms_of) == {
        ("centralise", "decentralise"), ("decentralize", "centralise"),
        ("have", "lack"), ("legalise", "outlaw"), ("miss", "have"),
    }  # fmt: skip


def test_synonyms_are_symmetric_but_for_words_that_are_no_answer(rows):
    """A word left out of all answers (see defense.language.lexicon.dictionary) may still be asked about."""
    synonyms_of = held(rows, "synonyms")
    answers = set().union(*synonyms_of.values())
    assert sum(map(len, synonyms_of.values())) > 100_000
    assert not {(word, other) for word, other in one_way(synonyms_of) if word in answers}


def test_a_cohyponym_is_a_single_word_of_the_table_and_no_synonym(rows):
    words = {word for word, _, _ in rows}
    same = defaultdict(set)
    for word, _, lists in rows:
        same[word].update(lists["synonyms"])
    for word, _, lists in rows:
        assert len(lists["cohyponyms"]) <= 8
        assert words.issuperset(lists["cohyponyms"]) and same[word].isdisjoint(lists["cohyponyms"])


def test_everyday_words_have_the_answers_one_expects():
    assert synonyms("car")[:2] == ("auto", "automobile") and "elevator car" in synonyms("car")
    assert antonyms("hot") == ("cold",) and antonyms("cold") == ("hot",)
    assert "woman" in antonyms("man") and "girl" in antonyms("boy")
    assert antonyms("tiny") == () and set(opposites("tiny")) == {"big", "large"}
    assert {"blue", "green", "yellow"} <= set(cohyponyms("red")) and "crimson" not in cohyponyms("red")
    assert {"bench", "couch", "table"} <= set(cohyponyms("chair"))
    assert {"pear", "apple"} <= set(cohyponyms("banana"))
    assert "dog" in cohyponyms("cat") and "cat" in cohyponyms("dog")
    assert {"lemon", "pear"} <= set(cohyponyms("orange", "noun")) and "blue" in cohyponyms("orange", "adj")
    assert {"three", "four"} <= set(cohyponyms("two", "noun"))


def test_the_commonest_sense_comes_first():
    assert synonyms("jump")[:3] == ("leap", "bound", "spring")  # the verb, tagged more often than the noun
    assert synonyms("woman")[0] == "adult female"
    assert synonyms("play")[0] == "drama"  # mostly a verb, but no sense of the verb that has synonyms is as common
    assert synonyms("leaves")[:2] == ("leave", "go forth")


@pytest.mark.parametrize(
    ("word", "use"),
    [("dog", "noun"), ("dogs", "noun"), ("children", "noun"), ("buses", "noun"), ("firemen", "noun"), ("glass", "noun"),
     ("ran", "verb"), ("running", "verb"), ("riding", "verb"), ("carried", "verb"), ("holds", "verb"), ("is", "verb"),
     ("red", "adj"), ("wooden", "adj"), ("happier", "adj"), ("tallest", "adj"), ("quickly", "adv"), ("Banana", "noun"),
     ("the", None), ("in", None), ("a", None), ("he", None), ("his", None), ("qwzx", None), ("", None)],
)  # fmt: skip
def test_part_of_speech_by_frequency(word, use):
    assert part_of_speech(word) == use


def test_inflected_words_answer_for_their_base_form():
    assert "dog" in synonyms("dogs") and "domestic dog" in synonyms("dogs")
    assert antonyms("women") == antonyms("woman")
    assert cohyponyms("geese") == cohyponyms("goose")
    assert "moving ridge" in synonyms("waves")
    assert "numb" not in synonyms("number") and "gras" not in synonyms("grass")


def test_function_words_have_no_synonyms_though_wordnet_lists_homographs():
    assert all(synonyms(word) == () for word in lexicon.STOP_WORDS)
    assert all(cohyponyms(word) == () for word in lexicon.FUNCTION_WORDS)
    assert "down" in antonyms("up")


def test_odd_words_have_no_answers():
    for word in ("", " ", "\t", "zzzz", "caf\u00e9", "\u8d64", "dog\tn", "a" * 10_000, "motor vehicle", "\ud800"):
        assert synonyms(word) == antonyms(word) == opposites(word) == cohyponyms(word) == ()
        assert part_of_speech(word) is None


def test_slurs_are_nobodys_synonym():
    """WordNet puts the garden tool and the raccoon into one synset with slurs, and marks it."""
    assert synonyms("spade") == ()
    assert "common raccoon" in synonyms("coon") and "spade" not in synonyms("coon")
    assert "coon" not in synonyms("raccoon")
    assert "rooster" in synonyms("cock") and "cock" not in synonyms("rooster")


def test_the_table_is_loaded_at_the_first_question_and_quickly():
    program = (
        "import time, sys; from defense.language import lexicon; assert not lexicon._table.cache_info().currsize\n"
        "start = time.process_time(); lexicon.synonyms('dog'); print(time.process_time() - start)\n"
        "assert not {'nltk', 'torch', 'spacy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.3


# A dictionary of a few synsets in WordNet's layout: offset, topic, type, words, pointers.
NOUNS = """
00000001 05 n 01 animal 0 000 | a creature
00000002 05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | it barks
00000003 05 n 02 cat 0 true_cat 0 001 @ 00000001 n 0000 | it purrs
00000004 05 n 01 wolf 0 001 @ 00000001 n 0000 | it howls
00000005 05 n 01 poodle 0 001 @ 00000002 n 0000 | a curled dog
00000006 18 n 02 Rex 0 top_dog(p) 0 001 @i 00000002 n 0000 | a named dog
00000007 18 n 02 cur 0 wolf 0 001 ;u 06718862 n 0000 | (ethnic slur) not to be drawn
00000008 09 n 02 4-H_club 0 o'clock 0 000 | digits and apostrophes
00000009 10 n 01 cat 0 000 | a catalogue, in more texts than the animal
""".strip()
ADJECTIVES = """
00000011 00 a 01 small 0 001 ! 00000012 a 0101 | little
00000012 00 a 02 large 0 big 0 001 ! 00000011 a 0101 | not small
00000013 00 s 01 tiny 0 001 & 00000011 a 0000 | very small
""".strip()
FILES = {
    "data.noun": f"  1 a licence\n{NOUNS}\n",
    "data.adj": f"{ADJECTIVES}\n",
    "data.verb": "00000021 30 v 02 dog 0 chase 0 000 01 + 08 00 | go after\n",
    "data.adv": "",
    "index.noun": "animal n 1 0 1 0 00000001\ncat n 2 0 2 0 00000009 00000003\ncur n 1 0 1 0 00000007\n"
    "dog n 1 0 1 1 00000002\ndomestic_dog n 1 0 1 0 00000002\no'clock n 1 0 1 0 00000008\npoodle n 1 0 1 0 00000005\n"
    "rex n 1 0 1 0 00000006\ntrue_cat n 1 0 1 0 00000003\nwolf n 3 0 3 0 00000004 00000004 00000007\n",
    "index.adj": "big a 1 0 1 0 00000012\nlarge a 1 0 1 0 00000012\nsmall a 1 0 1 0 00000011\n"
    "tiny a 1 0 1 0 00000013\n",
    "index.verb": "chase v 1 0 1 0 00000021\ndog v 1 0 1 1 00000021\n",
    "index.adv": "",
    "noun.exc": "doggen dog\nwolves wolf\nunknowns unknown\n",
    "verb.exc": "",
    "adj.exc": "",
    "adv.exc": "",
    "cntlist.rev": "cat%1:10:00:: 1 20\ncat%1:05:00:: 2 9\ndog%1:05:00:: 1 4\ndog%2:30:00:: 1 7\n"
    "small%3:00:00:: 1 3\ntiny%5:00:00:small:00 1 2\n",
}
TABLE = """
animal|n|0
big|a|0|0:large||small
cat|n|29|9:true cat|||wolf
chase|v|0|0:dog
dog|v|7|7:chase
dog|n|4|4:domestic dog
doggen|N|dog
large|a|0|0:big|small|small
oclock|n|0
poodle|n|0||||cat
rex|n|0|0:top dog|||cat
small|a|3||large|large
tiny|a|2|||large
wolf|n|0||||cat
wolves|N|wolf
""".strip().replace("|", "\t")


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="ascii")
    return tmp_path


def test_the_table_of_a_tiny_dictionary_is_the_one_written_by_hand(folder):
    """Cats are offered wolves, not dogs ("dog" is mostly a verb here); poodles, without siblings, their aunt the cat,
    not the wolf, which no text has. A cat is the animal before the catalogue; the slur's synset is gone."""
    assert build.table(WordNet(folder)) == TABLE.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/share/wordnet/data.noun").exists(), reason="needs Debian's wordnet-base")
def test_the_shipped_table_is_what_build_makes_of_wordnet():
    assert build.table(WordNet(Path("/usr/share/wordnet"))) == lexicon._table()


def test_building_twice_gives_the_same_bytes(folder, tmp_path, capsys):
    for name in ("one.gz", "two.gz"):
        build.main([str(folder), "--out", str(tmp_path / name)])
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()).decode() == TABLE + "\n"
    assert capsys.readouterr().out.count("15 lines") == 2


def test_a_folder_without_a_dictionary_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        build.main([str(tmp_path)])
    assert "no data.noun" in capsys.readouterr().err
