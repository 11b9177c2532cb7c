"""One job of an evaluation: a run on a test set, embedded once, every missing cell measured and committed."""

import hashlib
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from eval.measuring import classifiers
from eval.measuring.embed import Embedder, embed
from eval.store import scores
from eval.store.runs import Run
from eval.store.scores import Score
from eval.task import Task
from infra import plugins, rundir, storage
from infra.errors import Damaged
from pipeline.testsets import TestSet
from poison.attack import Attack


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
                run=job.run.place,
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
    from train import model as models  # open_clip takes six seconds to import: not for help, nor to see what is there
    from train import transforms

    trained = models.load_run(run.url, run.checkpoint)
    if trained.sha256 != run.weights_sha256:
        raise Damaged(f"the checkpoint {run.checkpoint} of {run.url} changed while it was evaluated")
    code = hashlib.sha256(b"".join(Path(str(module.__file__)).read_bytes() for module in (models, transforms)))
    parts = [trained.sha256, trained.architecture, code.hexdigest()]
    head = classifiers.head(run) if run.classes else None
    if head is not None:
        parts.append(hashlib.sha256(head.tobytes()).hexdigest())
    identity = json.dumps(parts, sort_keys=True)
    return Embedder(trained.model.to(device), trained.preprocess, trained.tokenizer, identity, device, head)


def device(number: int) -> torch.device:
    """Jobs take the GPUs of a machine in turn; without one, the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return torch.device("cuda", number % count) if count else torch.device("cpu")
