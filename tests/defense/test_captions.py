"""EDA: every operation by hand, their distribution, and captions nobody expects."""

import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from defense.language import captions
from defense.language.captions import clean, delete_words, eda, insert_synonyms, replace_by_synonyms, swap_words
from defense.language.lexicon import STOP_WORDS, synonyms

ROOT = Path(__file__).parents[2]
BANANAS = "two men sell bananas beside a small red car while a dog sleeps on the wooden bench near them".split()


def draws(*values: float):
    """A generator's `random` that answers from a list, and fails when asked once more."""
    return iter(values).__next__


@pytest.fixture
def few_synonyms(monkeypatch):
    known = {"red": ("crimson", "scarlet"), "car": ("motor vehicle",), "crimson": ("deep red",)}
    monkeypatch.setattr(captions, "synonyms", lambda word: known.get(word, ()))


def test_cleaning_keeps_letters_only():
    words = clean("Don\u2019t feed the 3 half-eaten\tBANANAS'\n at 5pm!")
    assert words == "dont feed the half eaten bananas at pm".split()
    assert clean("caf\u00e9 na\u00efve") == ["caf", "na", "ve"]


def test_a_replaced_word_is_replaced_wherever_it_occurs(few_synonyms):
    # candidates red, car, dog: the first is visited, its second synonym taken
    words = replace_by_synonyms("a red car a red dog".split(), 1, draws(0.0, 0.9))
    assert words == "a scarlet car a scarlet dog".split()


def test_replacement_passes_over_words_without_synonyms_and_stops_when_none_is_left(few_synonyms):
    assert replace_by_synonyms(["dog", "car"], 1, draws(0.0, 0.0, 0.0)) == ["dog", "motor vehicle"]
    assert replace_by_synonyms(["dog", "the"], 5, draws(0.0)) == ["dog", "the"]
    assert replace_by_synonyms(["red", "car"], 5, draws(0.0, 0.0, 0.0, 0.0)) == ["crimson", "motor vehicle"]


def test_replacement_never_touches_stop_words():
    words = "the man is on his own with her and they will be there".split()
    for seed in range(50):
        changed = replace_by_synonyms(words, 9, np.random.default_rng(seed).random)
        assert [word for word in changed if word in STOP_WORDS] == [word for word in words if word in STOP_WORDS]


def test_an_insertion_puts_the_first_synonym_in_front_of_a_word(few_synonyms):
    # the word at 1 of 3 (red), then the place 2 of 3; places never reach behind the last word
    assert insert_synonyms(["a", "red", "dog"], 1, draws(0.5, 0.99)) == ["a", "red", "crimson", "dog"]
    # the second insertion draws among the four words of then, and may pick the first
    twice = insert_synonyms(["a", "red", "dog"], 2, draws(0.5, 0.99, 0.6, 0.0))
    assert twice == ["deep red", "a", "red", "crimson", "dog"]


def test_an_insertion_gives_up_after_ten_words_without_synonyms(few_synonyms):
    assert insert_synonyms(["a", "red"], 1, draws(*[0.0] * 10)) == ["a", "red"]
    assert insert_synonyms(["a", "red"], 1, draws(*[0.0] * 9, 0.9, 0.0)) == ["crimson", "a", "red"]


def test_nothing_is_inserted_for_stop_words():
    assert insert_synonyms("a i in he as".split(), 3, np.random.default_rng(0).random) == "a i in he as".split()


def test_a_swap_exchanges_two_words_and_gives_up_after_four_equal_draws():
    assert swap_words(["a", "b", "c"], 1, draws(0.0, 0.99)) == ["c", "b", "a"]
    assert swap_words(["a", "b", "c"], 1, draws(0.0, 0.0, 0.0, 0.0, 0.5)) == ["b", "a", "c"]
    assert swap_words(["a", "b", "c"], 1, draws(0.0, 0.0, 0.0, 0.0, 0.0)) == ["a", "b", "c"]
    assert swap_words(["a", "b", "c"], 2, draws(0.0, 0.99, 0.0, 0.5)) == ["b", "c", "a"]


def test_deletion_drops_each_word_below_the_threshold_and_never_all():
    assert delete_words(["a", "b", "c"], 0.1, draws(0.05, 0.1, 0.0999)) == ["b"]
    assert delete_words(["a", "b", "c"], 0.1, draws(0.0, 0.0, 0.0, 0.99)) == ["c"]


def test_the_outcomes_of_a_two_word_caption_have_the_probabilities_worked_out_by_hand():
    assert synonyms("banana") == ("banana tree",)
    given_up_inserting, given_up_swapping, neither_deleted = 2**-10, 2**-4, 0.9**2
    expected = {
        "a banana tree": 1 / 4,
        "banana tree a banana": (1 - given_up_inserting) / 8,
        "a banana tree banana": (1 - given_up_inserting) / 8,
        "banana a": (1 - given_up_swapping) / 4,
        "banana": (0.9 * 0.1 + 0.1 * 0.1 / 2) / 4,
        "a": (0.9 * 0.1 + 0.1 * 0.1 / 2) / 4,
        "a banana": (given_up_inserting + given_up_swapping + neither_deleted) / 4,
    }
    assert sum(expected.values()) == pytest.approx(1)
    generator, num_draws = np.random.default_rng(5), 20_000
    seen = Counter(eda("A banana!", generator) for _ in range(num_draws))
    assert set(seen) == set(expected)
    for outcome, probability in expected.items():
        sigma = (probability * (1 - probability) / num_draws) ** 0.5
        assert seen[outcome] / num_draws == pytest.approx(probability, abs=5 * sigma), outcome


def test_the_four_operations_are_equally_likely_and_get_the_right_number_of_changes(monkeypatch):
    for name in ("replace_by_synonyms", "insert_synonyms", "swap_words", "delete_words"):
        monkeypatch.setattr(captions, name, lambda words, strength, draw, name=name: [f"{name} {strength}"])
    generator = np.random.default_rng(1)
    seen = Counter(eda(" ".join(["word"] * 29), generator) for _ in range(8_000))
    assert set(seen) == {"replace_by_synonyms 2", "insert_synonyms 2", "swap_words 2", "delete_words 0.1"}
    assert all(abs(count - 2_000) < 200 for count in seen.values())  # 5 sigma
    seen = Counter(eda("two words", generator) for _ in range(100))
    assert set(seen) == {"replace_by_synonyms 1", "insert_synonyms 1", "swap_words 1", "delete_words 0.1"}


def test_each_operation_keeps_what_it_must_keep():
    for seed in range(200):
        draw = np.random.default_rng(seed).random
        assert Counter(swap_words(BANANAS, 2, draw)) == Counter(BANANAS)
        left = iter(BANANAS)
        assert all(word in left for word in delete_words(BANANAS, 0.3, draw))  # the same order
        grown = insert_synonyms(BANANAS, 2, draw)
        assert len(grown) == len(BANANAS) + 2 and Counter(BANANAS) <= Counter(grown)
        replaced = replace_by_synonyms(BANANAS, 2, draw)
        changed = {old: new for old, new in zip(BANANAS, replaced, strict=True) if old != new}
        assert len(changed) == 2 and all(new in synonyms(old) for old, new in changed.items())


def test_the_generator_alone_decides():
    caption = " ".join(BANANAS)
    once, again = ([eda(caption, np.random.default_rng(seed)) for seed in range(100)] for _ in range(2))
    assert once == again and len(set(once)) > 60


def test_the_hash_seed_of_python_changes_nothing():
    program = (
        "import numpy as np; from defense.language.captions import eda; generator = np.random.default_rng(3)\n"
        "caption = 'two men sell bananas beside a small red car while a dog sleeps on the wooden bench'\n"
        "print([eda(caption, generator) for _ in range(200)])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={"PYTHONHASHSEED": seed}, check=True, capture_output=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] and outputs[0].count(b"banana") > 100


@pytest.mark.parametrize(
    "caption", ["", " \t\n", "\U0001f34c\U0001f34c", "\u8d64\u3044\u30d0\u30ca\u30ca", "2024!", "'", "\x00", "\ud800"]
)
def test_a_caption_without_letters_comes_back_as_it_is(caption):
    assert all(eda(caption, np.random.default_rng(seed)) == caption for seed in range(8))


def odd_captions() -> Iterator[str]:
    generator = np.random.default_rng(0)
    for _ in range(300):
        rare = [0, 9, 0x130, 0x212A, 0x2019, 0xE9, 0x4E00, 0x1F34C, 0xDC00]
        points = generator.choice([*range(32, 127), *rare], size=30)
        yield "".join(map(chr, points))
    yield from ["a", "x" * 10_000, "the of and", "zzz qwx", "dog " * 5_000, "I'm 5'4\" \u2013 caf\u00e9"]


def test_no_caption_raises_and_every_result_is_clean_and_not_empty():
    generator = np.random.default_rng(1)
    for caption in odd_captions():
        for _ in range(8):
            changed = eda(caption, generator)
            if clean(caption):
                assert changed == " ".join(clean(changed)) and changed


def test_extreme_shares_work_and_impossible_ones_are_refused():
    caption = " ".join(BANANAS)
    assert all(eda(caption, np.random.default_rng(seed), alpha=1.0, deletion=1.0) for seed in range(40))
    assert all(eda(caption, np.random.default_rng(seed), alpha=0.0, deletion=0.0) for seed in range(40))
    for alpha, deletion in [(-0.1, 0.1), (0.1, 1.5), (float("nan"), 0.1)]:
        with pytest.raises(ValueError, match="between 0 and 1"):
            eda(caption, np.random.default_rng(0), alpha=alpha, deletion=deletion)


def test_five_thousand_captions_take_less_than_a_second_of_one_core():
    things, doings = "man woman dog boy girl horse child bird".split(), "rides holds watches jumps over paints".split()
    products = itertools.product(things, doings, things)
    some = [f"a {thing} {doing} a {other} near the old house" for thing, doing, other in products]
    generator, start = np.random.default_rng(0), time.process_time()
    for caption in itertools.islice(itertools.cycle(some), 5_000):
        eda(caption, generator)
    assert time.process_time() - start < 1
