"""One job of an evaluation: a run on a test set, embedded once, every missing cell measured and committed.

What a cell was computed from, and the map, are there before the cell is: who finds a cell finds its answers.
"""

import time
from dataclasses import dataclass, replace

import torch

from eval.measuring import classifiers, maps, trials
from eval.measuring.embed import embed, embed_captioned, embed_pairs
from eval.measuring.pairs import Drawn
from eval.store import predictions, scores
from eval.store.runs import Run
from eval.store.scores import Score
from eval.task import Embedded, Measured, Task
from infra import rundir, storage
from pipeline.captioned import Captioned
from pipeline.testsets import TestSet
from poison.attack import Attack
from train import embedding
from train.embedding import Embedder


@dataclass(frozen=True)
class Cell:
    """file: of its scores. attack, key: what it is measured under, and how scores name that; None for clean ones.

    map: the file of the map of embeddings under that attack, where the test set is one of classes. pairs: of a task
    that is measured on pairs.
    """

    file: str
    task: Task
    attack: Attack | None
    key: str | None
    map: str | None = None
    pairs: Drawn | None = None


@dataclass(frozen=True)
class Job:
    """test: None for what is measured on pairs. testset: how scores name it. train: labelled images to learn from, for
    tasks that do. cpus: threads that decode images."""

    number: int
    run: Run
    test: TestSet | Captioned | None
    cells: tuple[Cell, ...]
    out: str
    testset: str | None
    seed: int
    cpus: int
    train: TestSet | None = None

    def without(self, files: set[str]) -> "Job":
        return replace(self, cells=tuple(cell for cell in self.cells if cell.file not in files))


def score(job: Job) -> int:
    """Measure the cells of one job and commit each. Idempotent. Returns how many."""
    start = time.monotonic()
    embedder = load(job.run, device(job.number))
    version = rundir.code_version()
    for cell in job.cells:
        try:
            embedded = _embedded(job, cell, embedder)
            measured = cell.task.measure(embedded)
        except ValueError as error:
            on = job.test.url if job.test is not None else "pairs of its dataset"
            raise ValueError(f"{job.run.url} on {on}: {error}") from error
        _tell(job, cell, embedded, measured)
        seconds = round(time.monotonic() - start, 3)
        rows = [
            Score(
                run=job.run.key,
                checkpoint=job.run.version,
                dataset=job.run.dataset_digest,
                attack=cell.key,
                testset=job.testset,
                task=cell.task.called,
                metric=measure.metric,
                k=measure.k,
                value=measure.value,
                n=measure.n,
                low=measure.low,
                high=measure.high,
                seed=job.seed,
                seconds=seconds,
                code_version=version,
                of=measure.of,
                bounds=measure.bounds,
            )
            for measure in measured.measures
        ]
        scores.write(storage.join(job.out, cell.file), rows)
        start = time.monotonic()
    return len(job.cells)


def _embedded(job: Job, cell: Cell, embedder: Embedder) -> Embedded:
    if cell.pairs is not None:
        return embed_pairs(embedder, cell.pairs, job.cpus)
    assert job.test is not None
    if isinstance(job.test, Captioned):
        return embed_captioned(embedder, job.test, cell.attack, job.seed, job.cpus)
    return embed(embedder, job.test, cell.attack, job.seed, job.cpus, job.train if cell.task.learns else None)


def _tell(job: Job, cell: Cell, embedded: Embedded, measured: Measured) -> None:
    """Writes the answers, and the map of embeddings if this is the first cell under its attack."""
    about = {
        "run": job.run.key,
        "checkpoint": job.run.version,
        "testset": job.testset,
        "attack": cell.key,
        "seed": job.seed,
        "classes": list(embedded.called),
    }
    rows = predictions.table(embedded, measured.answers)
    predictions.write(predictions.place(job.out, cell.file), rows, about | {"task": cell.task.called})
    if cell.map is None or embedded.attacked is None or cell.attack is None or not isinstance(job.test, TestSet):
        return
    place = predictions.place(job.out, cell.map)
    if not storage.exists(place):
        target = None if embedded.head else trials.class_number(job.test, cell.attack.target)
        predictions.write(place, maps.drawn(embedded, target), about | {"target": cell.attack.target})


def load(run: Run, device: torch.device) -> Embedder:
    """A run's model, ready to embed. Raises Damaged if its weights are not the ones the run's checkpoint names."""
    head = classifiers.head(run) if run.classes else None
    return embedding.embedder(run.url, run.checkpoint, run.weights_sha256, device, head)


def device(number: int) -> torch.device:
    """Jobs take the GPUs of a machine in turn; without one, the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device("cuda", number % count) if count else torch.device("cpu")
