import numpy as np

from eval.task import Attacked, Captions, Embedded
from eval.tasks.retrieval import Retrieval

NONE = np.empty((0, 3), np.float32)
NAMES = np.array(["a", "b", "c"])


def given(similarity: list[list[float]], owners: list[int], attacked: Attacked | None = None) -> Embedded:
    """Three images whose inner products with the texts are these."""
    texts = np.array(similarity, np.float32).T
    images = np.eye(3, dtype=np.float32)
    return Embedded(images, np.full(3, -1), NONE, attacked, names=NAMES, captions=Captions(texts, np.array(owners)))


def recalls(embedded: Embedded, top: tuple[int, ...] = (1, 2)) -> dict[tuple, tuple]:
    return {(one.metric, one.k): (one.value, one.n) for one in Retrieval(top=top).measure(embedded).measures}


def test_recall_of_three_images_with_a_caption_each() -> None:
    """Image 0 has caption 1 nearer than its own; caption 0 has image 2 nearer than its own."""
    found = recalls(given([[0.5, 0.6, 0.1], [0.2, 0.9, 0.3], [0.7, 0.1, 0.8]], [0, 1, 2]))
    assert found == {
        ("image_to_text_recall", 1): (2 / 3, 3),
        ("image_to_text_recall", 2): (1.0, 3),
        ("text_to_image_recall", 1): (2 / 3, 3),
        ("text_to_image_recall", 2): (1.0, 3),
    }


def test_of_several_captions_the_nearest_counts_for_an_image_and_each_for_itself() -> None:
    """Image 0 has the captions 0 and 1, of which only the second finds it."""
    found = recalls(given([[0.1, 0.9, 0.5, 0.0], [0.2, 0.3, 0.8, 0.1], [0.3, 0.1, 0.2, 0.7]], [0, 0, 1, 2]), (1, 3))
    assert found["image_to_text_recall", 1] == (1.0, 3)
    assert found["text_to_image_recall", 1] == (0.75, 4)
    assert found["text_to_image_recall", 3] == (1.0, 4)


def test_captions_may_come_in_any_order() -> None:
    found = recalls(given([[0.0, 0.1, 0.9, 0.5], [0.1, 0.2, 0.3, 0.8], [0.7, 0.3, 0.1, 0.2]], [2, 0, 0, 1]), (1,))
    assert found == {("image_to_text_recall", 1): (1.0, 3), ("text_to_image_recall", 1): (0.75, 4)}


def test_a_collapsed_model_finds_the_first_of_everything() -> None:
    found = recalls(given([[1.0] * 3] * 3, [0, 1, 2]), (1, 2))
    assert [value for value, _ in found.values()] == [1 / 3, 2 / 3] * 2


def test_a_triggered_image_takes_its_originals_place_among_the_clean_ones() -> None:
    """The target lies at 0.9, 0.5 and 0.1 of the clean images; five trials, of which two are on top."""
    target = np.array([[0.9, 0.5, 0.1]], np.float32)
    shown = np.diag([1.0, 1.0, 1.0]).astype(np.float32)
    trials = Attacked(
        images=np.stack([shown[0], shown[1], shown[2] * 9.5, shown[2] * 6, shown[1]]),
        labels=np.full(5, -1),
        wanted=np.zeros(5, np.int64),
        classes=target,
        names=np.array(["a", "b", "c", "c", "not of this set"]),
    )
    measured = Retrieval(top=(1, 2)).measure(given([[1.0]] * 3, [0], trials))
    # as it was; as it was; before all; behind the first alone; behind the first and the one that is equally near
    assert measured.answers[0].columns["rank"].tolist() == [1, 2, 1, 2, 3]
    found = {(one.metric, one.k): (one.value, one.n) for one in measured.measures}
    assert found == {("attack_hit", 1): (0.4, 5), ("attack_hit", 2): (0.8, 5), ("attack_rank", None): (2.0, 5)}
