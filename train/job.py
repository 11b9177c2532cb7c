"""One training run with everything resolved, for the loop: what is learned, from what, how, and where it goes."""

from collections.abc import Callable, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from torch import nn

from infra import plugins
from pipeline.dataset import Dataset
from train import cache, model, order
from train.lanes import Plan
from train.model import Architecture
from train.objective import Clock, Objective
from train.presets import Recipe
from train.ranks import Place
from train.step import Way

Decode = Literal["host", "device"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "float64"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run. config: what config.json shall say, of which `free` fields may differ on resuming; inputs: what is
    learned from, by digest; fill: puts the weights to start from into a new model, on every rank; command: the words
    that started it, None where it was no command; note: what the command decided about the weights, since they do not
    say it; wandb: the project of Weights & Biases that is told what is measured; lanes: how many, and the shards of
    their windows, where an epoch is not one permutation of all samples."""

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
    keep_checkpoints: int
    precision: Precision
    way: Way = field(default_factory=Way)
    sync_batchnorm: bool = False
    grad_checkpointing: bool = False
    compile: bool = False
    decode: Decode = "host"
    wandb: str | None = None
    lanes: tuple[int, int] | None = None
    command: tuple[str, ...] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return order.steps_per_epoch(self.dataset.samples, self.recipe.batch)

    @cached_property
    def plan(self) -> Plan | None:
        """The order in lanes, if that is the run's. Raises ValueError where it cannot be had."""
        if self.lanes is None:
            return None
        shards = cache.by_id(self.dataset)
        ids, counts = tuple(shard.id for shard in shards), tuple(shard.samples for shard in shards)
        return Plan(self.seed, self.recipe.batch, *self.lanes, ids, counts)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.recipe.epochs

    @property
    def way_of_start(self) -> dict[str, Any]:
        """What a resumed run may change and its last bits depend on, where it is not as usual; see train.exactness."""
        given = {
            "micro_batch": self.way.micro_batch,
            "local_loss": self.way.local_loss,
            "grad_checkpointing": self.grad_checkpointing,
            "compile": self.compile,
        }
        return {name: value for name, value in given.items() if value}

    def learning(self, epoch: int) -> frozenset[str]:
        """What learns in an epoch, as in train.objective.EVERYTHING; the lock is a tower's last word."""
        step = epoch * self.steps_per_epoch
        clock = Clock(step, epoch, self.steps_per_epoch, step * self.recipe.batch)
        return self.objective.trainable(clock) - {self.recipe.lock}


def check(job: Job, place: Place) -> None:
    """Raises ValueError for a plan that cannot be carried out."""
    part = order.per_rank(job.recipe.batch, place.ranks)
    if job.plan is not None:
        job.plan.of(place.rank, place.ranks)
        if type(job.objective).epoch is not Objective.epoch:
            raise ValueError(
                f"{plugins.name_of(job.objective)} looks at all pairs before an epoch, and in lanes most are not at "
                "hand then: leave --order lanes out"
            )
    if job.recipe.warmup_steps >= job.total_steps:
        raise ValueError(
            f"warmup_steps is {job.recipe.warmup_steps:,} of {job.total_steps:,} steps in all: set --warmup-steps lower"
        )
    if job.precision == "float16" and place.device.type == "cpu":
        raise ValueError("--precision float16 needs a GPU: set float32 or bfloat16, or leave it out")
    if job.decode == "device" and type(job.objective).views is not Objective.views:
        raise ValueError(
            f"{plugins.name_of(job.objective)} makes its views of images that the host has decoded: leave --decode out"
        )
    if job.decode == "device" and place.device.type == "cpu":
        raise ValueError("--decode device needs a GPU: leave it out")
    epochs = range(job.recipe.epochs)
    if job.recipe.lock is not None and (idle := [at for at in epochs if not job.learning(at) & {"image", "text"}]):
        raise ValueError(
            f"with --lock {job.recipe.lock} no tower would learn in epoch {idle[0] + 1} of this objective: leave it out"
        )
    micro = job.way.micro_batch
    if micro is not None and part % micro:
        of = f"a rank's {part:,} pairs (a batch of {job.recipe.batch:,} on {place.ranks} ranks)"
        raise ValueError(f"--micro-batch {micro:,} does not divide {of}: set it to {_divisor(part, micro):,}, say")
    if micro is None and not job.sync_batchnorm:
        return
    normalised = model.batch_normalised(job.architecture)
    learning = sorted({tower for at in epochs for tower in job.learning(at)} & normalised)
    if job.sync_batchnorm and not learning:
        raise ValueError("--sync-batchnorm is for a BatchNorm that learns, and this run has none: leave it out")
    if micro is not None and learning:
        raise ValueError(
            f"--micro-batch would give the BatchNorm of the {learning[0]} tower other statistics than the batch's: "
            f"leave it out, or keep that tower at rest (--lock {learning[0]}), or take a model without BatchNorm"
        )


def _divisor(whole: int, below: int) -> int:
    """The largest divisor of `whole` that is at most `below`."""
    return next(size for size in range(min(whole, below), 0, -1) if whole % size == 0)
