"""One training run with everything resolved, for the loop: what is learned, from what, how, and where it goes."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from pipeline.dataset import Dataset
from train import order
from train.model import Architecture
from train.objective import Objective
from train.presets import Recipe

Precision = Literal["auto", "float32", "bfloat16", "float64"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run. config: what config.json shall say, of which `free` fields may differ on resuming; inputs: what is
    learned from, by digest; fill: puts the weights to start from into a new model, on every rank; command: the words
    that started it, None where it was no command; note: what the command decided about the weights, since they do not
    say it."""

    objective: Objective
    dataset: Dataset
    architecture: Architecture
    fill: Callable[[nn.Module], None]
    note: str | None
    recipe: Recipe
    out: str
    config: dict[str, Any]
    free: Set[str]
    inputs: dict[str, Any]
    seed: int
    workers: int
    cache_gib: float
    checkpoint_steps: int | None
    checkpoint_seconds: float
    precision: Precision
    command: tuple[str, ...] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return order.steps_per_epoch(self.dataset.samples, self.recipe.batch)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.recipe.epochs


def check(job: Job, num_ranks: int) -> None:
    """Raises ValueError for a plan that cannot be carried out."""
    order.per_rank(job.recipe.batch, num_ranks)
    if job.recipe.warmup_steps >= job.total_steps:
        raise ValueError(
            f"warmup_steps is {job.recipe.warmup_steps:,} of {job.total_steps:,} steps in all: set --warmup-steps lower"
        )
