"""Every task, whoever wrote it: pure, deterministic, sane numbers, round trip through JSON; and neither the order of
what it is given, nor how that is cut into batches, has a say in its numbers."""

import copy
import dataclasses
import hashlib

import numpy as np
import pytest

from eval.store import predictions
from eval.task import Attacked, Captions, Embedded, Labelled, Measured, Pairs, Task
from infra import config, plugins
from train.embedding import normalised

TASKS = plugins.names(Task.FOLDERS)
CASES = [
    (name, attack)
    for name in TASKS
    for attack in (False, True)
    if (plugins.load(Task.FOLDERS, name, Task).under_attack if attack else plugins.load(Task.FOLDERS, name, Task).clean)
]


def task(name: str) -> Task:
    return plugins.load(Task.FOLDERS, name, Task)()


def named(first: int, count: int) -> np.ndarray:
    return np.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)])


def example(attack: bool) -> Embedded:
    generator = np.random.default_rng(3)
    classes = normalised(generator.normal(size=(12, 16)))

    def near(labels: np.ndarray) -> np.ndarray:
        return normalised(classes[labels] + 0.3 * generator.normal(size=(len(labels), 16)))

    labels, learned = np.arange(12).repeat(5), np.arange(12).repeat(6)
    images, names = near(labels), named(0, 60)
    others = np.flatnonzero(labels != 4)
    shown = normalised(images[others] + 0.5 * classes[4])
    trials = Attacked(shown, labels[others], np.full(len(others), 4), classes, names[others], np.ones(len(others)))
    owners = np.arange(60).repeat(2)
    captions = Captions(normalised(images[owners] + 0.3 * generator.normal(size=(120, 16))), owners)
    poisoned = np.arange(60) % 3 == 0
    return Embedded(
        images=images,
        labels=labels,
        classes=classes,
        attacked=trials if attack else None,
        names=names,
        lengths=np.ones(60),
        called=tuple(f"class {number}" for number in range(12)),
        train=Labelled(near(learned), learned, named(100, 72), np.ones(72)),
        captions=captions,
        pairs=Pairs(images, captions.texts[::2], np.arange(60), poisoned),
    )


def told(measured: Measured) -> dict[tuple, tuple]:
    """Every number by its name; to six digits, for a sum may be taken in another order."""
    found = {}
    for one in measured.measures:
        numbers = (one.value, one.low, one.high)
        found[one.metric, one.k, one.of, one.bounds, one.n] = tuple(None if x is None else round(x, 6) for x in numbers)
    return found


def arrays(value: object) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    if not dataclasses.is_dataclass(value):
        return []
    return [array for one in dataclasses.fields(value) for array in arrays(getattr(value, one.name))]


@pytest.mark.parametrize(("name", "attack"), CASES)
def test_a_task_gives_the_same_numbers_twice_and_leaves_its_input_alone(name: str, attack: bool) -> None:
    given = example(attack)
    before = copy.deepcopy(given)
    first, second = task(name).measure(given), task(name).measure(given)
    assert first.measures == second.measures
    tables = [predictions.table(given, measured.answers) for measured in (first, second)]
    assert tables[0].equals(tables[1])
    assert all(np.array_equal(now, then) for now, then in zip(arrays(given), arrays(before), strict=True))


@pytest.mark.parametrize(("name", "attack"), CASES)
def test_every_number_lies_in_its_interval_and_is_named_once(name: str, attack: bool) -> None:
    measured = task(name).measure(example(attack))
    assert measured.measures
    assert measured.answers
    assert len(told(measured)) == len(measured.measures)
    for measure in measured.measures:
        assert measure.n > 0
        assert measure.low is not None
        assert measure.high is not None
        assert measure.low <= measure.value <= measure.high
        if measure.bounds == "clopper-pearson":
            assert measure.low >= 0
            assert measure.high <= 1


@pytest.mark.parametrize(("name", "attack"), CASES)
def test_neither_order_nor_batches_have_a_say(name: str, attack: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given = example(attack)
    expected = told(task(name).measure(given))
    moved = shuffled(given)
    assert told(task(name).measure(moved)) == expected
    monkeypatch.setattr("eval.answering.CELLS", 100)
    assert told(task(name).measure(given)) == expected


def shuffled(given: Embedded) -> Embedded:
    generator = np.random.default_rng(5)

    def mixed(value: Attacked | Labelled | Pairs, order: np.ndarray) -> dict[str, np.ndarray]:
        parts = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
        return {name: part if name == "classes" else part[order] for name, part in parts.items()}

    order = generator.permutation(60)
    place = np.argsort(order)
    assert given.captions is not None
    assert given.train is not None
    assert given.pairs is not None
    texts = generator.permutation(120)
    captions = Captions(given.captions.texts[texts], place[given.captions.owners[texts]])
    attacked = None
    if given.attacked is not None:
        attacked = Attacked(**mixed(given.attacked, generator.permutation(len(given.attacked.images))))
    return dataclasses.replace(
        given,
        images=given.images[order],
        labels=given.labels[order],
        names=given.names[order],
        attacked=attacked,
        train=Labelled(**mixed(given.train, generator.permutation(72))),
        captions=captions,
        pairs=Pairs(**mixed(given.pairs, generator.permutation(60))),
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_measured_clean_or_under_attack(name: str) -> None:
    assert task(name).clean or task(name).under_attack


@pytest.mark.parametrize("name", TASKS)
def test_a_task_reads_back_from_json_equal(name: str) -> None:
    assert config.from_json(Task, config.to_json(task(name))) == task(name)
