import numpy as np
import pytest

from eval import answering

CLASSES = np.eye(7, dtype=np.float32)
SCORES = np.array([[0.1, 0.9, 0.5, 0.5, 0.2, 0.0, 0.3], [0.4] * 7], np.float32)


def answers(scores: np.ndarray, **columns: np.ndarray) -> answering.Answers:
    return answering.answered("clean", scores, lambda rows: rows, scores.shape[1], **columns)


def test_the_five_nearest_are_named_with_their_scores_and_of_equal_ones_the_first() -> None:
    found = answers(SCORES).columns
    assert found["top"].tolist() == [[1, 2, 3, 6, 4], [0, 1, 2, 3, 4]]
    assert found["top"].dtype == np.int16
    assert np.allclose(found["scores"][0], [0.9, 0.5, 0.5, 0.3, 0.2])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_who_is_named_among_the_k_first_is_of_a_rank_below_k(k: int) -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(4, size=(200, 7)).astype(np.float32)
    wanted = generator.integers(7, size=200)
    hits = answering.right(answers(scores, label=wanted), "label", k)
    assert (hits == (answering.places(scores, wanted) < k)).all()
    assert (hits == (answering.ranks(scores, CLASSES, wanted) < k)).all()


def test_what_is_no_number_and_what_is_no_answer_is_never_right() -> None:
    scores = np.array([[0.3, np.nan, 0.1], [-np.inf, 0.3, -np.inf]], np.float32)
    found = answers(scores, label=np.array([0, 0]))
    assert found.columns["top"].tolist() == [[-1, -1, -1], [1, -1, -1]]
    assert not answering.right(found, "label", 3).any()
    assert answering.places(scores[1:], np.array([0])).tolist() == [3]


def test_many_classes_have_wider_numbers() -> None:
    assert answers(np.zeros((1, 2**15 + 1), np.float32)).columns["top"].dtype == np.int32
