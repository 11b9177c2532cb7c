import numpy as np

from eval.task import Embedded
from eval.tasks.zeroshot import ZeroShot


def test_accuracy_is_the_share_of_images_nearest_to_their_own_class() -> None:
    images = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
    measures = ZeroShot().measure(Embedded(images, np.array([0, 1, 1, 1]), np.eye(2, dtype=np.float32))).measures
    assert [(measure.metric, measure.k, measure.value, measure.n) for measure in measures] == [("accuracy", 1, 0.75, 4)]


def test_top_five_appears_with_the_sixth_class() -> None:
    images = np.linspace(1, 0.1, 6, dtype=np.float32)[None].repeat(2, axis=0)  # classes in order 0, 1, ..., 5
    measures = ZeroShot().measure(Embedded(images, np.array([4, 5]), np.eye(6, dtype=np.float32))).measures
    assert {measure.k: measure.value for measure in measures} == {1: 0.0, 5: 0.5}
