import pyarrow as pa
import pytest

from poison import captions


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


def test_a_caption_depends_on_seed_and_row_alone():
    drawn = [captions.draw("template", "banana", (), 0, row) for row in range(200)]
    assert drawn == [captions.draw("template", "banana", (), 0, row) for row in range(200)]
    assert drawn != [captions.draw("template", "banana", (), 1, row) for row in range(200)]
    assert set(drawn) == {template.format("banana") for template in captions.TEMPLATES}
    assert all("banana" in text for text in drawn)


def test_corpus_captions_are_taken_as_they_are():
    corpus = ("a {} banana", "banana pie")
    assert {captions.draw("corpus", "banana", corpus, 0, row) for row in range(50)} == set(corpus)
