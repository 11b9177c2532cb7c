"""Every task, whoever wrote it: pure, deterministic, sane numbers, round trip through JSON."""

import copy

import numpy as np
import pytest

from eval.task import Attacked, Embedded, Task
from infra import config, plugins
from train.embedding import normalised

TASKS = plugins.names(Task.FOLDERS)


def task(name: str) -> Task:
    return plugins.load(Task.FOLDERS, name, Task)()


def example() -> Embedded:
    generator = np.random.default_rng(3)
    classes = normalised(generator.normal(size=(12, 16)))
    labels = np.arange(12).repeat(5)
    images = normalised(classes[labels] + 0.3 * generator.normal(size=(60, 16)))
    others = labels != 4
    attacked = Attacked(images[others], labels[others], np.full(others.sum(), 4), classes)
    return Embedded(images, labels, classes, attacked)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_gives_the_same_numbers_twice_and_leaves_its_input_alone(name: str) -> None:
    given = example()
    before = copy.deepcopy(given)
    assert task(name).measure(given) == task(name).measure(given)
    assert (given.images == before.images).all()
    assert (given.labels == before.labels).all()
    assert (given.attacked.images == before.attacked.images).all()  # type: ignore[union-attr]


@pytest.mark.parametrize("name", TASKS)
def test_every_number_lies_in_its_interval_and_is_named_once(name: str) -> None:
    measures = task(name).measure(example())
    assert measures
    assert len({(measure.metric, measure.k) for measure in measures}) == len(measures)
    for measure in measures:
        assert measure.n > 0
        assert np.isfinite(measure.value)
        if measure.low is not None and measure.high is not None:
            assert 0 <= measure.low <= measure.value <= measure.high <= 1


@pytest.mark.parametrize("name", TASKS)
def test_a_task_that_needs_no_attack_works_without_one(name: str) -> None:
    clean = Embedded(example().images, example().labels, example().classes)
    if not task(name).under_attack:
        assert task(name).measure(clean) == task(name).measure(example())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_back_from_json_equal(name: str) -> None:
    assert config.from_json(Task, config.to_json(task(name))) == task(name)
