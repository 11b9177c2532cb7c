"""Words of another meaning in the right form, and the parts of speech and heads that the lexicon's parser finds."""

import pytest

from defense.language.attachment import attach
from defense.language.contraries import PREPOSITIONS, contraries, same_meaning
from defense.language.inflection import UNCHANGED, alike, past, plural
from defense.language.lexicon import synonyms
from defense.language.lexicon.contrasts import contrasts
from defense.language.lexicon.uses import base_form, irregular_forms, uses
from defense.language.tagging import tags
from infra.seeding import rng


@pytest.mark.parametrize("part", ["noun", "adj", "verb"])
def test_no_word_of_the_table_of_contrasts_is_offered_itself_or_a_synonym(part):
    table = contrasts(part)
    assert len(table) > 40
    for word in table:
        for new in contraries(word, part):
            assert not same_meaning(word, new) and new not in synonyms(word) and word not in synonyms(new)
        assert contraries(word, part) or (part == "verb" and word in UNCHANGED), word


def test_a_word_outside_the_table_has_its_opposite_or_one_of_its_kind():
    assert contraries("shallow", "adj") == ("deep",)
    assert "emerge" not in contraries("the", "noun") and contraries("qwzx", "noun") == ()
    assert contraries("violinist", "noun") and "musician" not in contraries("violinist", "noun")


def test_new_words_stand_in_the_form_of_the_old_one():
    assert "cats" in contraries("dogs", "noun") and "dogs" in contraries("people", "noun")
    assert {"sitting", "swimming"} <= set(contraries("running", "verb"))
    assert {"sits", "swims"} <= set(contraries("runs", "verb"))
    assert "washed" in contraries("held", "verb") and "drunk" not in contraries("held", "verb")


@pytest.mark.parametrize(
    ("new", "word", "part", "expected"),
    [("wolf", "dogs", "noun", "wolves"), ("man", "girls", "noun", "men"), ("box", "cups", "noun", "boxes"),
     ("baby", "boys", "noun", "babies"), ("fireman", "boys", "noun", "firemen"), ("bus", "cars", "noun", "buses"),
     ("trousers", "hats", "noun", "trousers"), ("cat", "dog", "noun", "cat"), ("lie", "running", "verb", "lying"),
     ("run", "jumping", "verb", "running"), ("see", "jumping", "verb", "seeing"), ("carry", "jumps", "verb", "carries"),
     ("go", "jumps", "verb", "goes"), ("hop", "jumped", "verb", "hopped"), ("bake", "jumped", "verb", "baked"),
     ("swim", "jumped", "verb", None), ("spread", "jumped", "verb", None), ("cat", "quickly", "noun", None),
     ("small", "large", "adj", "small")],
)  # fmt: skip
def test_inflection(new, word, part, expected):
    assert alike(new, word, part) == expected


def test_forms_that_are_not_sure_are_none_and_odd_words_do_not_raise():
    assert past("run") is None and past("carry") == "carried" and plural("person") == "people"
    assert irregular_forms("run", "verb") == ("ran", "running") and base_form("ran", "verb") == "run"
    for word in ("", " ", "\ud800", "x" * 1000, "\u8d64"):
        assert uses(word) == () and contraries(word, "noun") == () and alike("cat", word, "noun") is None


def test_same_meaning_sees_forms_and_synonyms_both_ways():
    assert same_meaning("Dogs", "dog") and same_meaning("car", "automobile") and same_meaning("automobile", "car")
    assert same_meaning("ran", "running") and not same_meaning("dog", "cat") and not same_meaning("red", "blue")


def test_no_preposition_is_replaced_by_itself_or_one_that_says_the_same():
    alike_ = [{"under", "below", "beneath", "underneath"}, {"over", "above"}, {"next to", "beside", "near"},
              {"in", "inside"}, {"toward", "towards", "to"}]  # fmt: skip
    for phrase, others in PREPOSITIONS.items():
        assert others and phrase not in others
        assert not any(phrase in group and not group.isdisjoint(others) for group in alike_)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [("A brown dog plays in deep snow .", "DET ADJ NOUN VERB ADP ADJ NOUN PUNCT"),
     ("Two men are riding horses", "NUM NOUN AUX VERB NOUN"),
     ("The surfer jumps over an orange wave", "DET NOUN VERB ADP DET ADJ NOUN"),
     ("a girl in pink", "DET NOUN ADP NOUN"),
     ("a red - haired girl with her dog", "DET ADJ PUNCT ADJ NOUN ADP DET NOUN"),
     ("a bloe ball", "DET NOUN NOUN"),
     ("house surrounded by trees", "NOUN VERB ADP NOUN")],
)  # fmt: skip
def test_tags_of_simple_captions(caption, expected):
    assert tags(caption.split()) == expected.split()


def test_heads_of_a_simple_caption():
    words = "A man in a hat rides a red horse on the beach".split()
    heads, labels = attach(words, tags(words))
    assert labels == "det nsubj prep det pobj ROOT det amod dobj prep det pobj".split()
    assert heads == [1, 5, 1, 4, 2, 5, 8, 8, 5, 5, 11, 9]


def test_heads_are_always_a_tree_with_one_root():
    parts = "NOUN VERB ADJ ADP DET AUX PRON CCONJ PUNCT SCONJ PART ADV NUM X PROPN".split()
    some = "dog of runs in who and , . 's is not next to - front her".split()
    for number in range(500):
        generator = rng(number, "words")
        length = 1 + number % 25
        words = [str(each) for each in generator.choice(some, size=length)]
        heads, labels = attach(words, [str(each) for each in generator.choice(parts, size=length)])
        assert len(heads) == len(labels) == length and labels.count("ROOT") == 1
        for place in range(length):
            steps = 0
            while heads[place] != place and steps <= length:
                place, steps = heads[place], steps + 1
            assert steps <= length and labels[place] == "ROOT"
    assert attach([], []) == ([], [])


def test_a_synonym_in_the_table_would_not_be_offered(monkeypatch):
    monkeypatch.setattr("defense.language.contraries.contrasts", lambda part: {"car": ("automobile", "cars", "boat")})
    assert contraries.__wrapped__("car", "noun") == ("boat",)
