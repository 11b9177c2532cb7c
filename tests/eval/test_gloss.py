import pytest

from eval.reporting import gloss
from infra import plugins
from poison.attack import Attack


@pytest.mark.parametrize(
    ("docstring", "words"),
    [
        (
            "BadNet: a small patch over the image (Gu et al. 2017; on CLIP: others).\n\nMore.",
            "a small patch over the image",
        ),
        ("WaNet: the image itself is bent, nothing is drawn on it.", "the image itself is bent"),
        ("A white corner.", "A white corner"),
        ("Two lines of\none sentence. Then another.", "Two lines of one sentence"),
        ("", ""),
    ],
)
def test_the_first_words_are_taken(docstring: str, words: str) -> None:
    assert gloss.shortened(docstring) == words


def test_every_attack_says_what_it_is_in_a_few_words() -> None:
    for name in plugins.names(Attack.FOLDERS):
        assert 0 < len(gloss.attack(name)) < 120, name


def test_a_plugin_that_is_not_installed_has_none() -> None:
    assert gloss.attack("nothing-of-that-name") == ""
    assert gloss.objective("nothing-of-that-name") == ""
