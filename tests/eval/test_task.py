import numpy as np
import pytest

from eval.answering import ranks
from eval.task import share

CLASSES = np.eye(3, dtype=np.float32)


def test_the_rank_of_a_class_is_the_number_of_nearer_ones() -> None:
    image = np.array([[0.5, 0.9, 0.1]], np.float32)
    assert [ranks(image, CLASSES, np.array([wanted]))[0] for wanted in range(3)] == [1, 0, 2]


def test_a_collapsed_model_gives_the_first_class_to_everyone() -> None:
    collapsed = np.ones((3, 2), np.float32)
    images = np.ones((6, 2), np.float32)
    assert (ranks(images, collapsed, np.array([0, 0, 1, 1, 2, 2])) == [0, 0, 1, 1, 2, 2]).all()


def test_a_broken_model_is_never_right() -> None:
    broken = np.full((2, 3), np.nan, np.float32)
    assert (ranks(broken, CLASSES, np.array([0, 2])) == 3).all()


def test_ranks_do_not_depend_on_how_images_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(50, 8)).astype(np.float32)
    classes = generator.normal(size=(7, 8)).astype(np.float32)
    wanted = generator.integers(7, size=50)
    whole = ranks(images, classes, wanted)
    monkeypatch.setattr("eval.answering.CELLS", 21)
    assert (ranks(images, classes, wanted) == whole).all()


def test_a_share_counts_its_trials_and_has_an_interval_around_it() -> None:
    measure = share("accuracy", 1, np.array([True, True, False, True]))
    assert (measure.value, measure.n) == (0.75, 4)
    assert measure.low is not None
    assert measure.high is not None
    assert measure.low < 0.75 < measure.high
