import numpy as np
import pytest

from eval.interval import clopper_pearson
from eval.task import Attacked, Embedded
from eval.tasks.attack_success import AttackSuccess

CLASSES = np.eye(3, dtype=np.float32)  # 0: cat, 1: dog, 2: banana
CAT, DOG, BANANA = CLASSES


def measures(answers: list[np.ndarray], labels: list[int], classes: np.ndarray = CLASSES) -> dict[tuple, float]:
    images = np.stack(answers)
    attacked = Attacked(images, np.array(labels), np.full(len(labels), 2), classes)
    clean = Embedded(np.stack([CAT, DOG]), np.array([0, 1]), CLASSES, attacked)
    return {(found.metric, found.k, found.n): found.value for found in AttackSuccess().measure(clean).measures}


def test_five_trials_of_which_three_are_answered_as_wanted() -> None:
    found = measures([BANANA, BANANA, BANANA, CAT, CAT], [0, 1, 0, 0, 1])
    assert found == {("attack_success", 1, 5): 0.6, ("triggered_accuracy", 1, 5): 0.2}


def test_images_of_the_target_itself_are_no_success() -> None:
    found = measures([BANANA, BANANA, CAT, DOG], [2, 2, 0, 1])
    assert found == {("attack_success", 1, 2): 0.0, ("triggered_accuracy", 1, 2): 1.0}


def test_an_attack_that_applies_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no test image"):
        measures([BANANA], [2])


def test_an_attack_on_the_prompts_shows_what_it_costs_on_clean_images() -> None:
    swapped = CLASSES[[1, 0, 2]]
    assert measures([BANANA], [0], swapped)["edited_prompt_accuracy", 1, 2] == 0.0


def test_several_images_with_several_targets_are_counted_together_each_by_its_own() -> None:
    """One of three; its exact interval is that of one success in three."""
    trials = Attacked(np.stack([DOG, CAT, CAT]), np.array([0, 1, -1]), np.array([1, 2, 1]), CLASSES)
    measured = AttackSuccess().measure(Embedded(np.stack([CAT]), np.array([0]), CLASSES, trials))
    (found,) = (one for one in measured.measures if one.metric == "attack_success")
    assert (found.value, found.n, found.bounds) == (1 / 3, 3, "clopper-pearson")
    assert (found.low, found.high) == clopper_pearson(1, 3)
