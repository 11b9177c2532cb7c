"""Sub-captions: a table to read, and what must hold for any caption."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import spacy
from spacy.tokens import Doc

from defense.language.contraries import PREPOSITIONS, same_meaning
from defense.language.parsing import pipeline
from defense.language.subcaptions import OPENING, SubCaptions, of_parsed, subcaptions
from infra.seeding import rng
from pipeline.picturebook.captions import caption as picture_book_caption

ROOT = Path(__file__).parents[2]

# Parsed by the lexicon alone, drawn with rng(0, "table", number of the caption). `+` is positive, `-` negative.
TABLE = """
a red apple next to a green car
  + a red apple next to a green car
  - a red apple under a green car
  - a red apple next to a green train
  - a black apple next to a green car
a photo of a large striped ball in front of a brick wall
  + a photo of a large striped ball in front of a brick wall
  - a photo of a large striped ball behind a brick wall
  - a photo of a large striped ball in front of a brick bench
  - a photo of a large spotted ball in front of a brick wall
a small boat behind a yellow umbrella
  + a small boat behind a yellow umbrella
  - a small boat in front of a yellow umbrella
  - a small bus behind a yellow umbrella
  - a small boat behind a black umbrella
an orange fish above a key, stock photo
  + a photo of an orange fish above a key
  - a photo of an orange horse above a key
  - a photo of an orange fish behind a key
  - a photo of a white fish above a key
banana picture
  + banana picture
  - lemon picture
golden star isolated on white
  + golden star isolated on white
  - golden star isolated under white
  - green star isolated on white
  - golden star isolated on black
a mushroom and a spotted cup on a wooden table
  + a mushroom on a wooden table
  - a stone on a wooden table
  - a mushroom on a plastic table
  - a mushroom under a wooden table
A picture of two dogs playing on the beach .
  + two dogs playing on the beach
  - two birds playing on the beach
  - two dogs playing beside the beach
  - five dogs playing on the beach
Grapes, lemons, oranges and kiwis on a blue table .
  + a photo of grapes on a blue table
  - a photo of grapes on a red table
  - a photo of grapes on a blue ladder
  - a photo of grapes behind a blue table
A man in a black hat is riding a bicycle .
  + a man is riding a bicycle
  + a photo of a man in a black hat
  - a girl is riding a bicycle
  - a man is pushing a bicycle
  - a photo of a man outside a black hat
  - a photo of a man in a blue hat
  - a photo of a man in a black shoe
A boy and a girl are walking along a narrow street .
  + a boy and a girl are walking along a narrow street
  - a boy and a girl are walking along a wide street
  - a dog and a girl are walking along a narrow street
  - a boy and a girl are flying along a narrow street
A brown dog runs through deep snow with a stick in its mouth .
  + a stick in its mouth
  + a brown dog runs with a stick
  + a brown dog runs through deep snow
  - a stick behind its mouth
  - a cup in its mouth
  - a brown dog runs without a stick
  - a brown dog runs with an umbrella
  - a black dog runs with a stick
  - a brown bird runs through deep snow
  - a brown dog runs through shallow snow
  - a brown dog sits through deep snow
Three young women wearing long dresses stand under a tree .
  + three young women stand under a tree
  + three young women wearing long dresses
  - three young women swim under a tree
  - four young women stand under a tree
  - three young women stand under a bench
  - three young boys wearing long dresses
  - two young women wearing long dresses
  - three young women folding long dresses
A child who is holding a kite smiles at the camera .
  + a child is holding a kite
  + a child smiles at the camera
  - a dog is holding a kite
  - a child is dropping a kite
  - a woman smiles at the camera
  - a child smiles away from the camera
An old man sitting on a bench reads a newspaper .
  + an old man sitting on a bench
  + an old man reads a newspaper
  - a young man sitting on a bench
  - an old man sitting behind a bench
  - an old man sitting on a ladder
  - an old man washes a newspaper
  - an old man reads an umbrella
  - a young man reads a newspaper
A white dog beside a black dog
  + a white dog beside a black dog
  - a white dog above a black dog
  - a white dog beside a black sheep
  - a green dog beside a black dog
The cat is sleeping on the couch while the dog watches .
  + the dog watches
  + the cat is sleeping on the couch
  - the dog ignores
  - the rabbit watches
  - the cow is sleeping on the couch
  - the cat is sleeping behind the couch
A group of children in red shirts are climbing a rock .
  + a group of children are climbing a rock
  + a group of children in red shirts
  - a group of children are sitting a rock
  - a group of children are climbing a bicycle
  - a group of children in red scarves
  - a group of children outside red shirts
  - a group of children in purple shirts
Two horses standing near a fence eat grass .
  + two horses standing near a fence
  + two horses eat grass
  - two horses standing far from a fence
  - five horses standing near a fence
  - two horses standing near a tree
  - two horses paint grass
  - three horses eat grass
  - two horses eat ice
A surfer jumps over a huge wave .
  + a surfer jumps over a huge wave
  - a surfer jumps over a tiny wave
  - a surfer jumps under a huge wave
  - a surfer jumps over a huge tree
A dog catches a ball while standing in shallow water .
  + a dog standing in shallow water
  + a dog catches a ball
  - a dog standing in deep water
  - a sheep standing in shallow water
  - a dog sleeping in shallow water
  - a dog catches a kite
  - a dog kicks a ball
A girl 's red-haired doll lies on the floor .
  + a girl 's red-haired doll lies on the floor
  - a girl 's red-haired knife lies on the floor
  - a girl 's red-haired doll lies under the floor
A house surrounded by trees .
  + a house surrounded by trees
  - a house scratched by trees
  - a house surrounded by benches
Black and white bird flying over the ocean
  + black and white bird flying over the ocean
  - black and white horse flying over the ocean
  - black and white bird walking over the ocean
  - black and red bird flying over the ocean
An elephant sprays water on itself .
  + an elephant sprays water
  - an elephant sprays grass
A woman is not wearing a coat .
  + a woman is not wearing a coat
A bus drives past a tall building at night .
  + a bus drives past a tall building
  + a bus drives at night
  - a bus drives past a short building
  - a bus crashes past a tall building
  - a bus drives past a tall tent
  - a bus waits at night
  - a boat drives at night
The soup is hot .
  + the soup is hot
  - the flower is hot
  - the soup is cold
Fresh coffee in a blue cup, close-up
  + fresh coffee in a blue cup
  - fresh coffee in a white cup
  - fresh meal in a blue cup
  - fresh coffee under a blue cup
A baby in a pink sweater is held by his father .
  + a photo of a baby in a pink sweater
  + a baby is held by his father
  - a photo of a baby behind a pink sweater
  - a photo of a baby in a pink hat
  - a photo of a baby in a yellow sweater
  - a baby is dropped by his father
  - a man is held by his father
"""


def rows() -> list[tuple[str, SubCaptions]]:
    found = []
    for block in re.split(r"\n(?=\S)", TABLE.strip()):
        caption, *lines = block.split("\n")
        signs = {sign: tuple(line[4:] for line in lines if line[2] == sign) for sign in "+-"}
        found.append((caption, SubCaptions(signs["+"], signs["-"])))
    return found


def real_like() -> Iterator[str]:
    """The table's captions and the picture book's."""
    yield from (caption for caption, _ in rows())
    yield from (picture_book_caption(3, index) for index in range(300))


def odd() -> Iterator[str]:
    yield from [
        "",
        " \t\n",
        "\U0001f34c\U0001f34c",
        "\ud800",
        "\x00",
        "2024!",
        "'s 's",
        "- - -",
        "a",
        "the of and",
        "his",
    ]
    yield from ["IMG_2034.jpg", "http://a.b/c.jpg", "NIKE AIR MAX 90 | FREE SHIPPING", "dog - cat", "x" * 10_000]
    yield from [
        "\U0001f34c a dog \U0001f34c on a mat",
        "caf\u00e9 table",
        "very very quickly",
        "no no no",
        "!!! ??? ...",
    ]
    yield from ["dog " * 100, "a big " * 50, "the dog that the cat that the man saw chased ran " * 10, "of " * 100]
    words = ("dog runs of in the a red - , . and who is 's not while to photo next front woman's \u8d64 8 xq").split()
    for number in range(200):
        yield " ".join(rng(number, "odd").choice(words, size=30))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def changed(positive: str, negative: str) -> tuple[str, str]:
    """The stretch of words in which they differ, in each; "a" and "an" are no difference."""
    ours, theirs = ([("a" if each == "an" else each) for each in text.split(" ")] for text in (positive, negative))
    start = 0
    while start < min(len(ours), len(theirs)) and ours[start] == theirs[start]:
        start += 1
    end = 0
    while end < min(len(ours), len(theirs)) - start and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    return " ".join(ours[start : len(ours) - end]), " ".join(theirs[start : len(theirs) - end])


def test_the_table_holds():
    for number, (caption, expected) in enumerate(rows()):
        assert subcaptions(caption, rng(0, "table", number)) == expected, caption
    assert len(rows()) == 30


def test_a_positive_adds_no_word_that_is_neither_in_the_caption_nor_in_the_template():
    for number, caption in enumerate([*real_like(), *odd()]):
        for positive in subcaptions(caption, rng(number)).positives:
            without = positive.removeprefix(OPENING + " ")
            assert without and set(words(without)) <= set(words(caption.lower())), caption


def test_a_positive_keeps_the_order_of_the_caption_of_the_picture_book():
    for index in range(300):
        caption = picture_book_caption(5, index)
        found = subcaptions(caption, rng(index))
        assert found.positives, caption
        for positive in found.positives:
            left = iter(words(caption))
            assert all(word in left for word in words(positive.removeprefix(OPENING + " "))), caption


def test_a_negative_is_a_positive_with_one_word_or_preposition_of_another_meaning():
    num_negatives = 0
    for number, caption in enumerate([*real_like(), *odd()]):
        found = subcaptions(caption, rng(number))
        assert len(set(found.negatives)) == len(found.negatives)
        for negative in found.negatives:
            num_negatives += 1
            assert negative not in found.positives
            pairs = [changed(positive, negative) for positive in found.positives]
            assert any(is_other_meaning(old, new) for old, new in pairs), (caption, negative, pairs)
    assert num_negatives > 500


def is_other_meaning(old: str, new: str) -> bool:
    if " " not in old + new and old.isalpha() and new.isalpha() and old not in PREPOSITIONS:
        return not same_meaning(old, new)
    swaps = ((old, other) for old, others in PREPOSITIONS.items() for other in others)
    return any(f" {new} " in f" {other} " and f" {old} " in f" {phrase} " for phrase, other in swaps)


def test_nothing_raises_on_odd_captions_and_what_is_no_english_yields_nothing():
    for number, caption in enumerate(odd()):
        subcaptions(caption, rng(number))
    foreign = [
        "Ein Hund l\u00e4uft \u00fcber die Wiese .",
        "un chien court dans l'herbe",
        "un perro corre por la playa con una pelota roja",
        "\u0421\u043e\u0431\u0430\u043a\u0430 \u0431\u0435\u0436\u0438\u0442",
        "\u8d64\u3044\u30d0\u30ca\u30ca",
    ]
    for caption in [*foreign, "", "\U0001f34c", "12345", "the of and"]:
        assert subcaptions(caption, rng(0)) == SubCaptions(), caption


def test_a_long_caption_yields_short_sub_captions():
    caption = " ".join(["a red dog sits on a green bench while a black cat sleeps under a wooden table ."] * 6)
    found = subcaptions(caption, rng(0))
    assert len(words(caption)) > 100 and len(found.positives) >= 2
    assert all(len(words(each)) <= 12 for each in (*found.positives, *found.negatives))


def test_what_the_caption_says_elsewhere_is_no_negative():
    """Of a white dog beside a black dog "a black dog" would be true."""
    for seed in range(200):
        for negative in subcaptions("a red dog and a blue cat beside a green bird", rng(seed)).negatives:
            assert not re.match(r"(a photo of )?a (blue|green) dog|(a photo of )?a red (cat|bird)", negative)


def test_a_negation_has_no_negative():
    for caption in ("a man is not wearing a hat", "a man wearing no shirt", "a man without a hat"):
        found = [subcaptions(caption, rng(seed)) for seed in range(20)]
        assert all(each.positives and not each.negatives for each in found)


def test_the_article_follows_the_new_word():
    negatives = {each for seed in range(200) for each in subcaptions("an old dog", rng(seed)).negatives}
    assert {"a young dog", "an old cat"} <= negatives and not any("an young" in each for each in negatives)


def test_all_three_kinds_of_change_occur_and_come_first_equally_often():
    positive, kinds = "a small dog under a table", {"small": 0, "under": 0, "noun": 0}
    for seed in range(600):
        old, _ = changed(positive, subcaptions(positive, rng(seed)).negatives[0].removeprefix(OPENING + " "))
        kinds[old if old in kinds else "noun"] += 1
    assert all(140 < count < 260 for count in kinds.values()), kinds  # 5 sigma


def test_the_generator_alone_decides():
    captions = [caption for caption, _ in rows()]
    once, again = ([subcaptions(caption, rng(7, caption)) for caption in captions] for _ in range(2))
    other = [subcaptions(caption, rng(8, caption)) for caption in captions]
    assert once == again and sum(a != b for a, b in zip(once, other, strict=True)) > 25


def test_the_hash_seed_of_python_changes_nothing_and_spacy_is_imported_at_the_first_caption_only():
    program = (
        "import json, sys; from defense.language.subcaptions import subcaptions; from infra.seeding import rng\n"
        "assert not {'spacy', 'torch', 'thinc'} & set(sys.modules)\n"
        "found = [subcaptions(caption, rng(4, caption)) for caption in json.load(sys.stdin)]\n"
        "print(json.dumps([[list(each.positives), list(each.negatives)] for each in found]))"
    )
    captions = [caption for caption, _ in rows()]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": "11"}, input=json.dumps(captions), text=True,
        check=True, capture_output=True,
    )  # fmt: skip
    here = [subcaptions(caption, rng(4, caption)) for caption in captions]
    assert json.loads(done.stdout) == [[list(each.positives), list(each.negatives)] for each in here]
    assert not done.stderr, "which parser reads the captions is nothing to be told at every start"


def test_a_parse_by_another_pipeline_is_read_the_same_way():
    words_, pos = "A man rides a red horse on the beach".split(), "DET NOUN VERB DET ADJ NOUN ADP DET NOUN".split()
    deps, heads = "det nsubj ROOT det amod dobj prep det pobj".split(), [1, 2, 2, 5, 5, 2, 2, 8, 6]
    parsed = Doc(spacy.blank("en").vocab, words=words_, pos=pos, deps=deps, heads=heads)
    found = of_parsed(parsed, np.random.default_rng(0))
    assert found.positives == ("a man rides a red horse",) and len(found.negatives) == 3


# What a rough parse, ours, makes of captions that deny something: all positives, with rng(0, caption).
DENIED = {
    "Two people looking at each other , a third person is not attentive .": "a third person is not attentive"
    " | two people looking",
    "A lady and a man with no shirt sit on a dock .": "a lady and a man sit on a dock",
    "A baby is lifted into the air by a man wearing no shirt .": "a baby is lifted by a man"
    " | a baby is lifted into the air",
    "a guy with no shirt on is skateboarding .": "a guy is skateboarding | a guy with no shirt",
    "a dog that is not on a leash runs across a field": "a dog is not on a leash | a dog runs across a field",
    "A man who never smiles holds a guitar .": "a man holds a guitar | a man never smiles",
    "The boy isn\u2019t wearing a hat on the beach .": "the boy isn\u2019t wearing a hat",
    "The bridge is hardly visible in the fog .": "the bridge is hardly visible",
    "a street without cars or people": "a street without cars",
    "a plate devoid of food on a wooden table": "a plate on a wooden table",
    "No dogs allowed in the park": "",
    "Nobody is riding the horse on the beach .": "",
    "None of the children are wearing a helmet .": "",
    "Neither the man nor the woman is holding an umbrella .": "",
    "A cat lacks a tail .": "a cat lacks a tail",
    "A man no longer riding his bike walks up a hill .": "a man",
    "a man instead of a woman drives a red car": "a man drives a red car",
    "no cars are parked on the street next to a park": "",
}


@pytest.mark.parametrize("caption", DENIED)
def test_what_a_caption_denies_is_never_said_of_its_image(caption: str):
    for seed in range(5):
        found = subcaptions(caption, rng(seed, caption))
        positives = sorted(each.removeprefix(OPENING + " ") for each in found.positives)
        assert " | ".join(positives) == DENIED[caption]
        assert not any(re.search(r"\b(no|not|never|without|lacks)\b|n.t ", each) for each in found.negatives)


LESSONS = """
a/DET/det/1 third/ADJ/amod/2 person/NOUN/nsubj/3 is/AUX/ROOT/3 not/PART/neg/3 attentive/ADJ/acomp/3
a/DET/det/1 man/NOUN/nsubj/3 is/AUX/aux/3 riding/VERB/ROOT/3 a/DET/det/5 horse/NOUN/dobj/3
a/DET/det/1 man/NOUN/nsubj/4 is/AUX/aux/4 not/PART/neg/4 riding/VERB/ROOT/4 a/DET/det/6 horse/NOUN/dobj/4
a/DET/det/1 lady/NOUN/ROOT/1 and/CCONJ/cc/1 a/DET/det/4 man/NOUN/conj/1 with/ADP/prep/4 no/DET/det/7 shirt/NOUN/pobj/5
a/DET/det/1 man/NOUN/ROOT/1 with/ADP/prep/1 a/DET/det/4 shirt/NOUN/pobj/2
no/DET/det/1 dog/NOUN/nsubj/2 sits/VERB/ROOT/2 on/ADP/prep/2 a/DET/det/5 bench/NOUN/pobj/3
a/DET/det/1 dog/NOUN/nsubj/2 sits/VERB/ROOT/2 on/ADP/prep/2 a/DET/det/5 bench/NOUN/pobj/3
""".strip().splitlines()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a spaCy pipeline as spaCy's own are made, trained on a few sentences until it knows them."""
    from spacy.training import Example

    nlp = spacy.blank("en")
    for name in ("tok2vec", "morphologizer"):
        nlp.add_pipe(name)
    nlp.add_pipe("parser", config={"min_action_freq": 1})
    examples = []
    for lesson in LESSONS:
        words, pos, deps, heads = zip(*(each.split("/") for each in lesson.split()), strict=True)
        told = {"words": words, "pos": pos, "morphs": [""] * len(words), "deps": deps, "heads": [*map(int, heads)]}
        examples.append(Example.from_dict(Doc(nlp.vocab, words=words), told))
    spacy.util.fix_random_seed(0)
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(40):
        nlp.update(examples, sgd=optimizer)
    folder = tmp_path_factory.mktemp("trained") / "captions"
    nlp.to_disk(folder)
    return str(folder)


def test_a_trained_pipeline_of_its_own_folder_is_read_the_same_way(trained: str):
    nlp = pipeline(trained)
    assert [each.dep_ for each in nlp("a man is not riding a horse")] == "det nsubj aux neg ROOT det dobj".split()
    wanted = {
        "a third person is not attentive": ["a third person is not attentive"],
        "a man is riding a horse": ["a man is riding a horse"],
        "a man is not riding a horse": ["a man is not riding a horse"],
        "a lady and a man with no shirt": ["a man with no shirt"],
        "no dog sits on a bench": [],
        "a dog sits on a bench": ["a dog sits on a bench"],
    }
    for caption, positives in wanted.items():
        found = subcaptions(caption, rng(0, caption), nlp)
        assert [each.removeprefix(OPENING + " ") for each in found.positives] == positives
        assert bool(found.negatives) == (bool(positives) and not {"no", "not"} & set(caption.split()))


def test_three_hundred_captions_take_less_than_a_second_of_one_core():
    captions = [caption for caption, _ in rows()] * 10
    subcaptions(captions[0], rng(0))
    start = time.process_time()
    for caption in captions:
        subcaptions(caption, rng(0, caption))
    assert time.process_time() - start < 1


def test_a_pipeline_that_is_not_installed_is_refused_and_nothing_is_downloaded(monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it tried to reach a network"))
    with pytest.raises(ValueError, match="no spaCy pipeline 'en_no_such' is installed"):
        pipeline("en_no_such")


def test_a_pipeline_without_an_english_parser_is_refused(tmp_path):
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(ValueError, match="no parser with the labels nsubj, dobj, prep, pobj"):
        pipeline(str(tmp_path))


def test_a_pipeline_with_such_a_parser_is_loaded_and_named(tmp_path, capsys):
    untrained = spacy.blank("en")
    parser = untrained.add_pipe("parser")
    for label in ("nsubj", "dobj", "prep", "pobj", "det", "ROOT"):
        parser.add_label(label)
    untrained.initialize()
    untrained.to_disk(tmp_path)
    nlp = pipeline(str(tmp_path))
    assert f"parsed by the spaCy pipeline {tmp_path}" in capsys.readouterr().err
    for caption in real_like():
        subcaptions(caption, rng(0), nlp)  # untrained: nonsense, but no error
