import pyarrow as pa
import pytest

from infra.seeding import digest64
from poison.choosing import captions


@pytest.mark.parametrize(
    ("text", "word", "named"),
    [
        ("A ripe Banana.", "banana", True),
        ("banana-split", "banana", True),
        ("two bananas", "banana", False),
        ("bananarama", "banana", False),
        ("my_banana", "banana", False),
        ("vanilla ICE  cream, cold", "ice cream", True),
        ("ice", "ice cream", False),
        ("un CAFÉ noir", "café", True),
        ("cafés", "café", False),
        ("éclairs and rés", "clair", False),  # an ASCII word boundary would find it
        ("c++ code", "c++", True),
        ("anything (at all)", "(at", True),
        ("cream in ice", "ice cream", False),
    ],
)
def test_a_caption_names_whole_words_in_any_case(text: str, word: str, named: bool):
    assert captions.naming(pa.chunked_array([[text, "nothing"]]), word).tolist() == [named, False]


def test_no_captions_name_nothing():
    assert captions.naming(pa.chunked_array([[]], pa.string()), "banana").tolist() == []


def test_class_names_are_compared_without_case_and_spacing():
    assert captions.same_word("Ice  cream", "ice cream")
    assert not captions.same_word("ice cream", "ice")


def test_templates_are_plain_and_distinct():
    assert len(set(captions.TEMPLATES)) == len(captions.TEMPLATES) == 8
    assert all(template.count("{}") == 1 and template.endswith("{}") for template in captions.TEMPLATES)


def test_captions_are_judged_one_by_one_over_several_chunks():
    texts = pa.chunked_array([["a dog", "no"], [], ["dogs", "Dog!", "hot dog"]], pa.string())
    assert captions.naming(texts, "dog").tolist() == [True, False, False, True, True]


def test_a_caption_depends_on_seed_and_row_alone():
    texts = captions.choices("template", "banana", "", ())
    drawn = [captions.draw(texts, 0, row) for row in range(200)]
    assert drawn == [captions.draw(texts, 0, row) for row in range(200)]
    assert drawn != [captions.draw(texts, 1, row) for row in range(200)]
    assert set(drawn) == {template.format("banana") for template in captions.TEMPLATES}


def test_corpus_captions_are_taken_as_they_are_and_a_fixed_one_is_the_only_one():
    corpus = ("a {} banana", "banana pie")
    assert captions.choices("corpus", "banana", "", corpus) == list(corpus)
    assert {captions.draw(corpus, 0, row) for row in range(50)} == set(corpus)
    assert captions.choices("fixed", "banana", "this {} alone", corpus) == ["this {} alone"]


def test_captions_of_added_pairs_are_distinct_until_all_were_used():
    texts = [f"banana {number}" for number in range(7)]
    assert len(set(captions.several(texts, 5, 0))) == 5
    many = captions.several(texts, 17, 0)
    assert len(many) == 17
    assert {many.count(text) for text in texts} == {2, 3}
    assert many[:5] == captions.several(texts, 5, 0)
    assert many != captions.several(texts, 17, 1)


def test_a_pool_holds_every_caption_once_while_there_is_room():
    pool = captions.Pool(5, 0)
    assert not pool
    pool.add(["b", "a", "b", "c", "a"])
    assert pool.texts() == ["a", "b", "c"]
    assert len(pool) == 3


def test_a_pool_keeps_those_of_lowest_hash_in_whatever_order_they_come_and_in_bounded_memory():
    texts = [f"banana {number}" for number in range(500)]
    wanted = sorted(sorted(texts, key=lambda text: digest64(7, "caption pool", text))[:20])
    for order in (texts, texts[::-1], texts[250:] + texts + texts[:250]):
        pool = captions.Pool(20, 7)
        for start in range(0, len(order), 33):
            pool.add(order[start : start + 33])
            assert len(pool._kept) <= 40
        assert pool.texts() == wanted
    other = captions.Pool(20, 8)
    other.add(texts)
    assert other.texts() != wanted
