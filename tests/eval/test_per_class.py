import numpy as np
import pytest

from eval.task import Attacked, Embedded
from eval.tasks.per_class import PerClass

CLASSES = np.eye(3, dtype=np.float32)
CAT, DOG, BANANA = CLASSES
CALLED = ("cat", "dog", "banana")


def numbers(embedded: Embedded) -> dict[str | None, tuple[float, int]]:
    return {one.of: (one.value, one.n) for one in PerClass().measure(embedded).measures}


def test_every_row_of_a_three_by_three_matrix_and_an_empty_class_has_none() -> None:
    shown = Embedded(np.stack([CAT, CAT, DOG, DOG]), np.array([0, 0, 0, 1]), CLASSES, called=CALLED)
    assert numbers(shown) == {"cat": (2 / 3, 3), "dog": (1.0, 1)}


def test_under_attack_each_class_has_its_own_share_and_the_target_none() -> None:
    trials = Attacked(
        np.stack([BANANA, CAT, BANANA, BANANA, BANANA]),
        np.array([0, 0, 1, 2, -1]),
        np.array([2] * 5),
        CLASSES,
    )
    shown = Embedded(np.stack([CAT]), np.array([0]), CLASSES, trials, called=CALLED)
    assert numbers(shown) == {"cat": (0.5, 2), "dog": (1.0, 1)}


def test_several_targets_at_once_are_each_counted_for_its_own_image() -> None:
    trials = Attacked(np.stack([DOG, CAT, DOG]), np.array([0, 1, 2]), np.array([1, 2, 1]), CLASSES)
    shown = Embedded(np.stack([CAT]), np.array([0]), CLASSES, trials, called=CALLED)
    assert numbers(shown) == {"cat": (1.0, 1), "dog": (0.0, 1), "banana": (1.0, 1)}


def test_trials_of_no_known_class_cannot_be_told_class_by_class() -> None:
    trials = Attacked(np.stack([BANANA]), np.array([-1]), np.array([2]), CLASSES)
    with pytest.raises(ValueError, match="no image is of a class"):
        numbers(Embedded(np.stack([CAT]), np.array([0]), CLASSES, trials, called=CALLED))
