"""What a training objective is, and the contrastive mathematics that all of them share.

The loop encodes and gathers; an objective says which views it wants and is mathematics on embeddings. `loss` sees the
features of the *global* batch, in its order, on every rank alike: averaged over ranks, the gradient is that of one
process (train.ranks.gather has the gradient to go with it), and no objective ever thinks about ranks. Where logits are
shared out among ranks (--local-loss), `cross_entropy`, `clip_loss` and `diagonal` see to it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.images import Decoded, pillow
from train import ranks

EVERYTHING = frozenset({"image", "text", "scale"})  # both towers and the logit scale
START = "start: "  # before a view's name: its embedding by the model as the run began with it


@dataclass(frozen=True)
class Clock:
    """Where a run is. step and epoch count from 0; samples: seen before this step."""

    step: int
    epoch: int
    steps_per_epoch: int
    samples: int

    @property
    def step_of_epoch(self) -> int:
        return self.step % self.steps_per_epoch


@dataclass(frozen=True)
class Pair:
    """What a loader worker knows of a sample: decoded image, caption, row id, and its role this epoch (0: none).

    label: its class, -1 where it has none. seed: of the run, for what shall be the same in every epoch.
    """

    row: int
    decoded: Decoded
    caption: str
    role: int = 0
    label: int = -1
    seed: int = 0

    @cached_property
    def image(self) -> Image.Image:
        """For views that Pillow makes. One that shows the image as it is takes `decoded`, and spares the copies."""
        return pillow(self.decoded)


@dataclass(frozen=True)
class Views:
    """Named views of one pair, before the model's own transform and tokenizer. A text may be None: there is none."""

    images: dict[str, Decoded]
    texts: dict[str, str | None]


@dataclass(frozen=True)
class Setting:
    """What an objective may need to know of a run: the width of its embeddings, how many samples and classes its
    dataset has (0 classes: its images have no labels), and where tensors lie."""

    width: int
    samples: int
    classes: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True)
class Features:
    """Embeddings of the global batch, L2-normalised, with gradient: float (N, D) by view name.

    rows, roles, labels: int64 (N,); no label is -1. raw: the images before normalisation, which linear heads read.
    The embedding of a text that a pair does not have is zero; `there` tells it from others.
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    rows: Tensor
    roles: Tensor
    labels: Tensor
    raw: dict[str, Tensor] = field(default_factory=dict)

    def there(self, text: str) -> Tensor:
        """Which pairs have this text view: bool (N,)."""
        return self.texts[text].detach().abs().amax(dim=1) > 0


@dataclass(frozen=True)
class Loss:
    """total: the scalar to descend; parts: scalars to log, by name.

    matches: row ids that the batch's pairs were matched with, int64 (N,) by what was matched; a run keeps them.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    matches: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The base of all training objectives. A subclass is one file in `train/objectives/` or `defense/objectives/`; its
    fields are its knobs.
    """

    FOLDERS: ClassVar[tuple[str, ...]] = ("train.objectives", "defense.objectives")
    summary: ClassVar[str] = ""
    """What it does, in a few words that follow its name and a colon: `CLIP's loss on clean pairs`."""
    classifies: ClassVar[bool] = False
    """Whether it learns from labelled images, and the run answers by a `classifier` rather than by prompts."""
    from_start: ClassVar[bool] = False
    """Whether `features` also hold each view as the model embedded it when the run began, in evaluation mode and
    without gradient, as START + its name."""
    in_role_order: ClassVar[bool] = False
    """Whether an epoch with roles takes its pairs by role, the lowest first: one pass after another."""

    def check(self, epochs: int) -> None:
        """Raises ValueError if a run of so many epochs would end before it does what it is named for."""

    def ready(self) -> None:
        """Called once, before loader workers are forked: what they share is loaded here. Raises ValueError."""

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        """Runs in a loader worker, with all global generators set from the same labels as `rng`.

        The names of the views are the same for every pair, at least one of the images.
        """
        return Views({"image": pair.decoded}, {"text": pair.caption})

    def state(self, setting: Setting) -> nn.Module:
        """What must be checkpointed with the model: a pool, a head with parameters of its own. Default: nothing.

        Raises ValueError if the dataset will not do.
        """
        return nn.Module()

    def trainable(self, clock: Clock) -> frozenset[str]:
        """What learns at this step: a subset of EVERYTHING. The rest does not move at all, not by momentum either."""
        return EVERYTHING

    def rate(self, clock: Clock) -> float:
        """Factor on the learning rate of this step."""
        return 1.0

    def epoch(
        self,
        clock: Clock,
        rows: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        rng: np.random.Generator,
        state: nn.Module,
    ) -> np.ndarray | None:
        """Roles for an epoch, at its start: int64 (n,) beside `rows`, or None.

        rows: the row id of every sample, int64 (n,). score(ids): an evaluation pass over samples by their position in
        `rows`, int64 (m,); returns the cosine of each one's image and caption, float64 (m,). rng: of this epoch.
        state: may be changed, the same on every rank.
        """
        return None

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        """Pure. scale: exp(logit_scale), a scalar tensor with gradient."""
        raise NotImplementedError

    def remember(self, features: Features, clock: Clock, state: nn.Module) -> None:
        """What the state keeps of a batch, once its loss is known and before the step; without gradient."""

    def classifier(self, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Of one that `classifies`: the weights (C, D) and biases (C,) on raw image embeddings, from a saved state."""
        raise NotImplementedError


def cross_entropy(queries: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in one direction: mean over i of -log softmax(scale * queries_i . keys)_i. queries, keys: (N, D)."""
    return diagonal(lambda rows: scale * queries[rows] @ keys.T, len(queries), queries.device)


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP (Radford et al. 2021): the mean of both directions of InfoNCE. images, texts: (N, D)."""
    if ranks.share(len(images)) is not None:
        return (cross_entropy(images, texts, scale) + cross_entropy(texts, images, scale)) / 2
    logits = scale * images @ texts.T  # for both directions: half the work where a rank makes them all
    labels = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def diagonal(logits: Callable[[slice], Tensor], rows: int, device: torch.device) -> Tensor:
    """Mean over the rows i of logits of -log softmax(logits_i)_i, of which a rank makes its share where they are
    shared out: N N / ranks of them instead of N N, with the same value and gradient.

    logits: makes the rows of a slice, float (n, K), K >= rows.
    """
    labels = torch.arange(rows, device=device)
    if (mine := ranks.share(rows)) is None:
        return F.cross_entropy(logits(slice(None)), labels)
    return ranks.total(F.cross_entropy(logits(mine), labels[mine], reduction="sum")) / rows
