"""What a training objective is, and the contrastive mathematics that all of them share.

The loop encodes and gathers; an objective says which views it wants and is mathematics on embeddings. `loss` sees the
features of the *global* batch, in its order, on every rank alike: averaged over ranks, the gradient is that of one
process (train.ranks.gather has the gradient to go with it), and no objective ever thinks about ranks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True)
class Clock:
    """Where a run is. step and epoch count from 0; samples: seen before this step."""

    step: int
    epoch: int
    steps_per_epoch: int
    samples: int


@dataclass(frozen=True)
class Pair:
    """What a loader worker knows of a sample: decoded picture, caption, row id, and its role this epoch (0: none)."""

    row: int
    image: Image.Image
    caption: str
    role: int = 0


@dataclass(frozen=True)
class Views:
    """Named views of one pair, before the model's own transform and tokenizer."""

    images: dict[str, Image.Image]
    texts: dict[str, str]


@dataclass(frozen=True)
class Features:
    """Embeddings of the global batch, L2-normalised, with gradient: float (N, D) by view name.

    rows: int64 (N,). roles: int64 (N,).
    """

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    rows: Tensor
    roles: Tensor


@dataclass(frozen=True)
class Loss:
    """total: the scalar to descend; parts: scalars to log, by name."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The seam. A subclass is one file in `train/objectives/` or `defense/objectives/`; its fields are its knobs."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("train.objectives", "defense.objectives")

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        """Runs in a loader worker, with all global generators set from the same labels as `rng`.

        The names of the views are the same for every pair, at least one of each kind.
        """
        return Views({"image": pair.image}, {"text": pair.caption})

    def state(self, model: nn.Module) -> nn.Module:
        """What must be checkpointed with the model: a pool, a head with parameters of its own. Default: nothing."""
        return nn.Module()

    def trainable(self, clock: Clock) -> frozenset[str]:
        """The towers that learn at this step: a subset of {"image", "text"}. The others do not move at all."""
        return frozenset({"image", "text"})

    def epoch(self, clock: Clock, rows: np.ndarray, score: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
        """Roles for an epoch, at its start: int64 (n,) beside `rows`, or None.

        rows: the row id of every sample, int64 (n,). score(ids): an evaluation pass over samples by their position in
        `rows`, int64 (m,); returns the cosine of each one's picture and caption, float64 (m,).
        """
        return None

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        """Pure. scale: exp(logit_scale), a scalar tensor with gradient."""
        raise NotImplementedError


def cross_entropy(queries: Tensor, keys: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in one direction: mean over i of -log softmax(scale * queries_i . keys)_i. queries, keys: (N, D)."""
    return F.cross_entropy(scale * queries @ keys.T, torch.arange(len(queries), device=queries.device))


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP (Radford et al. 2021): the mean of both directions of InfoNCE. images, texts: (N, D)."""
    logits = scale * images @ texts.T
    labels = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
