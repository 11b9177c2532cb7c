"""Weights & Biases' view of metrics.jsonl, for those who ask for it: the numbers that TensorBoard has, and config.json.

Of this machine nothing is told: neither its hardware, nor its code, nor what it prints.
"""

import contextlib
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

from infra import storage
from train.events import values
from train.job import Job


def check(project: str | None) -> None:
    """Raises ValueError where it is asked for and not installed."""
    if project is not None and importlib.util.find_spec("wandb") is None:
        raise ValueError("--wandb needs a package that is not installed: pip install wandb, or leave it out")


@contextlib.contextmanager
def told(job: Job) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """While open, what is called with each line of metrics.jsonl; None where nobody asked. Rank 0 only.

    A run that goes on is the same one there: its name and id follow from its folder.
    """
    if job.wandb is None:
        yield None
        return
    import wandb

    quiet = wandb.Settings(
        console="off", silent=True, save_code=False, disable_git=True, x_disable_stats=True, x_disable_machine_info=True
    )
    identity = hashlib.sha256(job.out.encode()).hexdigest()[:16]
    name = job.out.rstrip("/").rsplit("/", 1)[-1]
    place = storage.local(job.out)  # its own files lie in the run; of a run in a bucket, where WANDB_DIR says
    with wandb.init(
        project=job.wandb,
        id=identity,
        name=name,
        resume="allow",
        dir=None if place is None else str(place),
        config=job.config,
        settings=quiet,
    ) as run:
        yield lambda line: run.log(values(line), step=line["step"])
