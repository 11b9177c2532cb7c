"""What a run says while it trains: progress, metrics.jsonl, TensorBoard's events, matches/, environment.json.

Rank 0 only.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from infra import log, rundir
from train import matches, model, ranks
from train.events import Events
from train.job import Job
from train.objective import Loss
from train.ranks import Place
from train.stream import SPENT, Batch


class Meter:
    """Where the time went since it was last read, checkpoints aside."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.start, self.wait, self.pause, self.samples = time.monotonic(), 0.0, 0.0, 0
        self.spent, self.loaded = torch.zeros(len(SPENT), dtype=torch.float64), 0

    def waiting_for(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time until each comes is waiting."""
        while True:
            before = time.monotonic()
            batch = next(batches, None)
            self.wait += time.monotonic() - before
            if batch is None:
                return
            self.spent += batch.pop("seconds")  # off here, so that it is not sent to the device
            self.loaded += len(batch["rows"])
            yield batch

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before = time.monotonic()
        yield
        self.pause += time.monotonic() - before

    def read(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self.start - self.pause, 1e-9)
        found = {"samples_per_second": self.samples / seconds, "data_wait_share": self.wait / seconds}
        each = (self.spent * 1000 / max(self.loaded, 1)).tolist()
        found |= {f"{name}_ms": value for name, value in zip(SPENT, each, strict=True)}
        self._reset()
        return found


def measurement(step: int, epoch: int, loss: Loss, rate: float, scale: torch.Tensor, meter: Meter) -> dict[str, Any]:
    """One line of metrics.jsonl. step: steps taken; loss, parts: of that step's batch; scale: exp(logit_scale)."""
    parts = {name: float(value.detach()) for name, value in loss.parts.items()}
    known = {"step": step, "epoch": epoch, "loss": float(loss.total.detach()), "parts": parts, "lr": rate}
    return known | {"logit_scale": float(scale.detach())} | meter.read() | {"time": round(time.time(), 3)}


class Journal:
    """The files that grow with a run. What an interrupted one wrote after its checkpoint is forgotten."""

    def __init__(self, job: Job, place: Place, step: int, told: Callable[[dict[str, Any]], None] | None = None) -> None:
        """told: who else is told each measurement."""
        model.save_architecture(job.architecture, job.out)
        attempt: dict[str, Any] = {"step": step, "ranks": place.ranks, "precision": job.precision}
        attempt |= {"threads": torch.get_num_threads()} | job.way_of_start | ranks.way()
        if job.command is not None:
            attempt["command"] = list(job.command)
        rundir.record_attempt(job.out, attempt)
        self.metrics = rundir.Metrics(job.out)
        self.events = Events(job.out, self.metrics.truncate(step))
        self.matches = matches.Book(job.out, step)
        self.told = told

    def append(self, line: dict[str, Any]) -> None:
        self.metrics.append(line)
        self.events.append(line)
        if self.told is not None:
            self.told(line)

    def flush(self) -> None:
        self.metrics.flush()
        self.events.flush()


@contextlib.contextmanager
def progress(job: Job, place: Place, step: int) -> Iterator[Callable[[int, str], None]]:
    """A bar that counts pairs, from `step` on; called with a count and a note."""
    if not place.first:
        yield lambda _count, _note: None
        return
    where = f"resuming at step {step:,} of" if step else "training for"
    log.say(f"{where} {job.total_steps:,} steps on {place.ranks} x {place.device.type}", step=step)
    if job.note:
        log.warn(job.note)
    batch = job.recipe.batch
    with log.progress("training", job.total_steps * batch, "pairs", step * batch) as bar:
        yield lambda count, note: bar.add(count, note)
