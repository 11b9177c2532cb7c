import numpy as np
import pytest

from eval.task import Attacked, Embedded, Labelled, Measured
from eval.tasks.knn import KNN, nearest

EAST, NORTH, WEST = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)


def learned(images: list[np.ndarray], labels: list[int]) -> Labelled:
    return Labelled(np.stack(images), np.array(labels), np.array([f"{number:064x}" for number in range(len(images))]))


def measured(shown: list[np.ndarray], labels: list[int], train: Labelled, num: int = 2, **knobs: float) -> Measured:
    classes = np.zeros((num, 2), np.float32)
    return KNN(**knobs).measure(Embedded(np.stack(shown), np.array(labels), classes, train=train))


def accuracy(*given: object, **knobs: object) -> float:
    return measured(*given, **knobs).measures[0].value  # type: ignore[arg-type]


def test_the_class_of_the_nearest_images_wins() -> None:
    train = learned([EAST, EAST, NORTH, NORTH], [0, 0, 1, 1])
    assert accuracy([EAST, NORTH, NORTH, NORTH], [0, 1, 0, 1], train, neighbours=2) == 0.75


def test_near_votes_weigh_more_than_many() -> None:
    """exp(1 / 0.07) of one against twice exp(0 / 0.07); at a high temperature the many win."""
    train = learned([EAST, NORTH, NORTH], [0, 1, 1])
    assert accuracy([EAST], [0], train, neighbours=3) == 1.0
    assert accuracy([EAST], [0], train, neighbours=3, temperature=10.0) == 0.0


def test_votes_are_exponentials_of_the_cosine() -> None:
    votes = KNN(neighbours=2, temperature=0.5).votes(EAST[None], learned([EAST, NORTH, WEST], [2, 0, 1]), 4)
    assert np.allclose(votes, [[np.exp(-2.0), -np.inf, 1.0, -np.inf]])


def test_fewer_images_than_neighbours_are_all_asked() -> None:
    assert accuracy([EAST], [0], learned([EAST, NORTH], [0, 1]), neighbours=20) == 1.0


def test_a_class_without_images_to_learn_from_is_never_the_answer() -> None:
    """Not even among the first five, where nobody voted for three of six classes."""
    train = learned([EAST, NORTH, WEST], [0, 1, 2])
    found = measured([EAST, EAST], [0, 4], train, num=6)
    assert {one.k: one.value for one in found.measures} == {1: 0.5, 5: 0.5}
    assert found.answers[0].columns["top"].tolist() == [[0, 1, 2, -1, -1]] * 2


def test_one_class_is_the_answer_to_everything() -> None:
    found = measured([EAST, WEST], [0, 0], learned([EAST], [0]), num=2)
    assert [one.value for one in found.measures] == [1.0]


def test_of_equally_near_images_the_first_names_are_asked_whatever_their_order() -> None:
    train = learned([NORTH, NORTH, NORTH], [1, 0, 1])
    turned = Labelled(train.images[::-1], train.labels[::-1], train.names[::-1])
    for given in (train, turned):
        assert accuracy([EAST], [1], given, neighbours=1) == 1.0


def test_an_attack_is_counted_as_of_prompts() -> None:
    train = learned([EAST, NORTH], [0, 1])
    trials = Attacked(np.stack([NORTH, EAST, NORTH]), np.array([0, 0, 1]), np.array([1, 1, 1]), np.zeros((2, 2)))
    given = Embedded(np.stack([EAST]), np.array([0]), np.zeros((2, 2), np.float32), trials, train=train)
    found = {(one.metric, one.n): one.value for one in KNN().measure(given).measures}
    assert found == {("attack_success", 2): 0.5, ("triggered_accuracy", 2): 0.5}


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_nearest_are_those_of_a_stable_sort(k: int) -> None:
    similarity = np.random.default_rng(0).integers(3, size=(40, 5)).astype(np.float32)
    expected = np.sort(np.argsort(-similarity, axis=1, kind="stable")[:, :k], axis=1)
    assert (nearest(similarity, k) == expected).all()
