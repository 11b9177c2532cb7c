"""Which cells a grid has, by what they are named, and in which jobs they are made."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eval.judging import roles
from eval.judging.roles import Comparison
from eval.measuring.pairs import Drawn
from eval.measuring.scoring import Cell, Job
from eval.store import runs as run_folders
from eval.store.records import AttackRecord, TestSetRecord
from eval.store.runs import Run
from eval.store.scores import Score
from eval.task import On, Task
from infra import config, storage
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.attack import Attack
from poison.ledger import Ledger


@dataclass(frozen=True)
class Grid:
    """What is measured on what, each with the record that a folder of scores keeps of it.

    train: by the url of a test set of classes, the labelled images that a task may learn from. pairs: by the key of an
    attack, what a task on pairs is shown.
    """

    runs: tuple[Run, ...]
    tests: tuple[tuple[TestSet | Captioned, TestSetRecord], ...]
    attacks: tuple[tuple[Ledger, AttackRecord], ...]
    train: dict[str, TestSet]
    pairs: dict[str, Drawn]

    def compare(self, found: Sequence[Score]) -> list[Comparison]:
        runs = run_folders.named_apart(self.runs)
        return roles.compare(found, runs, [about for _, about in self.tests], [about for _, about in self.attacks])


@dataclass(frozen=True)
class _Place:
    """What a run is measured on: a test set, or pairs. name: in the names of files."""

    kind: On
    name: str
    test: TestSet | Captioned | None = None
    about: TestSetRecord | None = None
    train: TestSet | None = None


def jobs(grid: Grid, tasks: Sequence[Task], out: str, seed: int, cpus: int) -> list[Job]:
    """One of every run on every test set that a task is for, and on pairs, where a task is for those."""
    found: list[Job] = []
    for run in grid.runs:
        for place in _places(grid):
            if cells := tuple(_cells(grid, tasks, run, place, seed)):
                testset = place.about.key if place.about is not None else None
                found.append(Job(len(found), run, place.test, cells, out, testset, seed, cpus, place.train))
    return found


def kind_of(test: TestSet | Captioned) -> On:
    return "captions" if isinstance(test, Captioned) else "labels"


def _places(grid: Grid) -> Iterator[_Place]:
    for test, about in grid.tests:
        yield _Place(kind_of(test), about.name, test, about, grid.train.get(test.url))
    if grid.pairs:
        yield _Place("pairs", "")


def _cells(grid: Grid, tasks: Sequence[Task], run: Run, place: _Place, seed: int) -> Iterator[Cell]:
    under: list[tuple[Attack | None, str]] = [(None, "")]
    under += [(ledger.attack, record.key) for ledger, record in grid.attacks]
    for task in tasks:
        if task.on != place.kind or (task.reads and run.classes):
            continue
        for attack, key in under:
            if not (task.clean if attack is None else task.under_attack):
                continue
            drawn = grid.pairs[key] if place.kind == "pairs" else None
            identity = {
                "run": run.key,
                "weights": run.weights_sha256,
                "architecture": run.architecture,
                "testset": [place.about.key, place.about.digest] if place.about is not None else None,
                "attack": key,
                "seed": seed,
            }
            own = identity | {"task": config.to_json(task)}
            if task.learns and place.train is not None:
                own["train"] = place.train.digest
            if drawn is not None:
                own["pairs"] = drawn.digest
            yield Cell(
                file=_file_name((run.name, place.name, task.called, key), own),
                task=task,
                attack=attack,
                key=key or None,
                map=_file_name(("map", run.name, place.name, key), identity)
                if attack is not None and place.kind == "labels"
                else None,
                pairs=drawn,
            )


def _file_name(words: Sequence[str], identity: dict[str, Any]) -> str:
    content = hashlib.sha256(storage.dump_json(identity)).hexdigest()[:12]
    return storage.file_name([re.sub(r"[^\w.-]+", "_", word) for word in (*words, content) if word], ".json")
