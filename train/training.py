"""The configuration of the two entries: what a user can ask for, and how that becomes a job."""

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import tyro
from torch import nn

from infra import config, plugins, rundir, storage
from infra.config import Seldom
from pipeline import leaving
from pipeline.dataset import Dataset
from train import checkpoint, loop, model, online, ranks, weights
from train.job import Decode, Job, Precision, check
from train.model import Architecture
from train.objective import Objective
from train.presets import PRESETS, Recipe
from train.step import Way

LANES = {"lanes": 64, "window": 4}  # what these fields are unless they are given


@dataclass(frozen=True)
class Beginning:
    """Where a run starts: an architecture, the weights put into it, and their digest for the run's lineage.

    note: what cannot be known of the weights, and was taken from the command.
    """

    architecture: Architecture
    fill: Callable[[nn.Module], None]
    lineage: dict[str, Any] | None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Training:
    """What pretraining and finetuning have in common."""

    # Fields that may differ when the same command comes back; digests stand for the places among them.
    FREE: ClassVar[frozenset[str]] = frozenset(
        {
            "dataset",
            "pretrained",
            "out",
            "preset",
            "workers",
            "cache_gib",
            "checkpoint_steps",
            "checkpoint_seconds",
            "keep_checkpoints",
            "micro_batch",
            "local_loss",
            "grad_checkpointing",
            "compile",
            "wandb",
            "dry_run",
        }
    )

    objective: Objective
    dataset: str
    """Folder of the dataset: a path or s3://bucket/folder; a bare folder of WebDataset tars will do. For supervised:
    of labelled images, as testset makes them (data/labelled/train)."""
    out: str
    """Folder of the run."""
    preset: str = "demo"
    """Defaults for what follows, by name (train/presets.py)."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: PRESETS["demo"].recipe)
    seed: int = 0
    workers: int = 2
    """Loader processes of each rank; 0 loads in the rank itself."""
    micro_batch: int | None = None
    """Pairs of a rank that pass the model at a time, to save memory: the same loss and gradient for a second forward
    pass. Not while a BatchNorm learns."""
    order: Annotated[Literal["permutation", "lanes"], Seldom] = "permutation"
    """Of an epoch. permutation: of all pairs, whose shards must all fit --cache-gib. lanes: for data beyond that; a
    batch takes the next pairs of every lane, and a node holds the shards of its lanes' windows only."""
    lanes: Annotated[int, Seldom] = LANES["lanes"]
    """With --order lanes: how many; the ranks must divide it, and it the batch."""
    window: Annotated[int, Seldom] = LANES["window"]
    """With --order lanes: the shards that a lane mixes at a time."""
    cache_gib: Annotated[float, Seldom] = 100.0
    """Room on each node for shards that lie elsewhere; ANTIDOTE_CACHE says where."""
    checkpoint_steps: Annotated[int | None, Seldom] = None
    """A checkpoint after every so many steps ..."""
    checkpoint_seconds: Annotated[float, Seldom] = 600.0
    """... and whenever this much time has passed since the last."""
    keep_checkpoints: Annotated[int, Seldom] = checkpoint.KEPT
    """The newest so many are kept; 0: all, so that evaluate can measure each."""
    precision: Annotated[Precision, Seldom] = "auto"
    """Of the towers. auto: bfloat16 on GPUs, float32 on CPUs. float16 scales its loss. float64 is for tests."""
    local_loss: Annotated[bool, Seldom] = False
    """Each rank makes its share of a batch's logits, not all: the same loss and gradient for less memory."""
    grad_checkpointing: Annotated[bool, Seldom] = False
    """Compute activations anew on the way back, to save memory, where the model can."""
    sync_batchnorm: Annotated[bool, Seldom] = False
    """Take a BatchNorm's statistics over all ranks; otherwise, as the papers do, each rank has its own."""
    compile: Annotated[bool, Seldom] = False
    """Have torch.compile make faster code of the towers."""
    decode: Annotated[Decode, Seldom] = "host"
    """Where plain JPEGs larger than the model become pixels. device: on the GPU, of objectives that show images as they
    are; pixels differ a little by the decoder."""
    wandb: Annotated[str | None, Seldom] = None
    """A project of Weights & Biases that is told what TensorBoard is told."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers cannot be negative, it is {self.workers}")
        if self.recipe.batch < 2 and not self.objective.classifies:
            raise ValueError("a batch of 1 has no other pair to tell its own from: set --batch to at least 2")
        for name in ("cache_gib", "checkpoint_seconds", "checkpoint_steps", "micro_batch", "lanes", "window"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        if self.keep_checkpoints < 0:
            raise ValueError(f"keep_checkpoints is a number of checkpoints, or 0 for all, not {self.keep_checkpoints}")
        if self.order == "permutation" and any(getattr(self, name) != LANES[name] for name in LANES):
            raise ValueError("--lanes and --window are for --order lanes: set that, or leave them out")
        self.objective.check(self.recipe.epochs)
        if storage.same(self.out, self.dataset):
            raise ValueError(f"out and dataset are the same folder, {self.out}: choose another --out")

    def beginning(self) -> Beginning:
        """Raises ValueError if there is nothing to start from."""
        raise NotImplementedError

    def job(self, command: Sequence[str] | None = None) -> Job:
        """Everything resolved: the dataset opened, the start found. Touches nothing. Raises ValueError.

        command: the words that this was started with, for whoever wants to repeat it.
        """
        dataset, beginning = self._opened(), self.beginning()
        learned: dict[str, Any] = {
            "digest": dataset.digest,
            "samples": dataset.samples,
            "contains_poison": dataset.contains_poison,
        }
        if dataset.classes:
            learned["classes"] = list(dataset.classes)
        learned |= leaving.lineage(dataset.url)
        return Job(
            objective=self.objective,
            dataset=dataset,
            architecture=beginning.architecture,
            fill=beginning.fill,
            note=beginning.note,
            recipe=self.recipe,
            out=storage.absolute(self.out),
            config=self._config(),
            free=self.FREE,
            inputs={"dataset": learned, "pretrained": beginning.lineage},
            seed=self.seed,
            workers=self.workers,
            cache_gib=self.cache_gib,
            checkpoint_steps=self.checkpoint_steps,
            checkpoint_seconds=self.checkpoint_seconds,
            keep_checkpoints=self.keep_checkpoints,
            precision=self.precision,
            way=Way(self.micro_batch, self.local_loss),
            sync_batchnorm=self.sync_batchnorm,
            grad_checkpointing=self.grad_checkpointing,
            compile=self.compile,
            decode=self.decode,
            wandb=self.wandb,
            lanes=(self.lanes, self.window) if self.order == "lanes" else None,
            command=None if command is None else tuple(command),
        )

    def _config(self) -> dict[str, Any]:
        """Of a run without lanes, decoding on the device, or a number of checkpoints as before there were such: one of
        then goes on.
        """
        found: dict[str, Any] = config.to_json(self)
        absent = {"order", *LANES} if self.order == "permutation" else set()
        absent |= {"decode"} if self.decode == "host" else set()
        absent |= {"keep_checkpoints"} if self.keep_checkpoints == checkpoint.KEPT else set()
        return {name: value for name, value in found.items() if name not in absent}

    def _opened(self) -> Dataset:
        return Dataset.open(self.dataset, labelled=self.objective.classifies)

    def run(self, command: Sequence[str] | None = None) -> str:
        """Train, or resume, or say that it is done. Returns the last line to print. command: as for `job`."""
        if self.dry_run:
            return self._plan()
        with ranks.group() as place:
            # One rank of a node first: a bare folder of tars is indexed on first sight, into the node's cache.
            ranks.together(lambda: self._opened() if place.first_of_node else None)
            return loop.train(ranks.together(lambda: self.job(command)), place)

    def _plan(self) -> str:
        job, place = self.job(), ranks.here()
        check(job, place)
        online.check(self.wandb)
        with torch.device("meta"):
            clip = model.create(job.architecture)
        with warnings.catch_warnings():  # that nothing is copied into a model of shapes alone is what is wanted
            warnings.simplefilter("ignore")
            job.fill(clip)
        parameters = sum(parameter.numel() for parameter in clip.parameters())
        if place.first:
            print(json.dumps(job.config, indent=2))
        return (
            f"dry run: would take {job.total_steps:,} steps of {self.recipe.batch:,} pairs "
            f"({self.recipe.epochs} epochs of {job.dataset.samples:,}) with {parameters:,} parameters, into {job.out}"
            f"{f'; {job.note}' if job.note else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class Pretraining(Training):
    """A CLIP from nothing, or from weights that open_clip reads."""

    model: str = "picturebook-resnet"
    """A model of train/models/ or of open_clip, such as RN50-quickgelu or ViT-B-32."""
    pretrained: str | None = None
    """A local file of weights (.safetensors or .pt) to start from instead of a random initialisation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        model.architecture(self.model)
        if self.objective.from_start and self.pretrained is None:
            raise ValueError(
                f"{plugins.name_of(self.objective)} goes by the model that a run begins with, and this one would begin "
                "with none: finetune a run with it, or give --pretrained"
            )

    def beginning(self) -> Beginning:
        architecture = model.architecture(self.model)
        if (pretrained := self.pretrained) is None:
            return Beginning(architecture, lambda _: None, None)
        if not Path(pretrained).is_file():
            raise ValueError(f"no weights file at {pretrained}: --pretrained names a local .safetensors or .pt file")
        with open(pretrained, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        note = weights.activation(self.model, pretrained)
        fill = lambda clip: weights.load(clip, self.model, pretrained)  # noqa: E731
        return Beginning(architecture, fill, {"sha256": digest}, note)


@dataclass(frozen=True, kw_only=True)
class Finetuning(Training):
    """A run's model, trained further, with a fresh optimiser."""

    preset: str = "demo-finetune"
    """Defaults for what follows, by name (train/presets.py)."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=lambda: PRESETS["demo-finetune"].recipe)
    pretrained: str
    """Folder of the finished run to start from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if storage.same(self.out, self.pretrained):
            raise ValueError(f"out and pretrained are the same folder, {self.out}: choose another --out")

    def beginning(self) -> Beginning:
        architecture = model.load_architecture(self.pretrained)
        done = rundir.ended(self.pretrained)
        saved = checkpoint.named(self.pretrained, done["checkpoint"])
        if saved is None:
            raise ValueError(f"the run at {self.pretrained} has lost its last checkpoint, {done['checkpoint']}")
        found = saved
        lineage = done | {"inputs": rundir.environment(self.pretrained)["inputs"]}
        return Beginning(architecture, lambda clip: model.load_bytes(clip, found.read(checkpoint.MODEL)), lineage)
