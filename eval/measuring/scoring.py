"""One job of an evaluation: a run on a test set, embedded once, every missing cell measured and committed."""

import time
from dataclasses import dataclass, replace

import torch

from eval.measuring import classifiers
from eval.measuring.embed import embed
from eval.store import scores
from eval.store.runs import Run
from eval.store.scores import Score
from eval.task import Task
from infra import plugins, rundir, storage
from pipeline.testsets import TestSet
from poison.attack import Attack
from train import embedding
from train.embedding import Embedder, device


@dataclass(frozen=True)
class Cell:
    """file: of its scores. attack, key: what it is measured under, and how scores name that; None for clean tasks."""

    file: str
    task: Task
    attack: Attack | None
    key: str | None

    @property
    def task_name(self) -> str:
        return plugins.name_of(self.task)


@dataclass(frozen=True)
class Job:
    """testset: how scores name the test set. cpus: threads that decode images."""

    number: int
    run: Run
    test: TestSet
    cells: tuple[Cell, ...]
    out: str
    testset: str
    seed: int
    cpus: int

    def without(self, files: set[str]) -> "Job":
        return replace(self, cells=tuple(cell for cell in self.cells if cell.file not in files))


def score(job: Job) -> int:
    """Measure the cells of one job and commit each. Idempotent. Returns how many."""
    start = time.monotonic()
    embedder = load(job.run, device(job.number))
    version = rundir.code_version()
    for cell in job.cells:
        try:
            embedded = embed(embedder, job.test, cell.attack, job.seed, job.cpus)
            measures = cell.task.measure(embedded)
        except ValueError as error:
            raise ValueError(f"{job.run.url} on {job.test.url}: {error}") from error
        seconds = round(time.monotonic() - start, 3)
        rows = [
            Score(
                run=job.run.key,
                checkpoint=job.run.version,
                dataset=job.run.dataset_digest,
                attack=cell.key,
                testset=job.testset,
                task=cell.task_name,
                metric=measure.metric,
                k=measure.k,
                value=measure.value,
                n=measure.n,
                low=measure.low,
                high=measure.high,
                seed=job.seed,
                seconds=seconds,
                code_version=version,
            )
            for measure in measures
        ]
        scores.write(storage.join(job.out, cell.file), rows)
        start = time.monotonic()
    return len(job.cells)


def load(run: Run, device: torch.device) -> Embedder:
    """A run's model, ready to embed. Raises Damaged if its weights are not the ones the run's checkpoint names."""
    head = classifiers.head(run) if run.classes else None
    return embedding.embedder(run.url, run.checkpoint, run.weights_sha256, device, head)
