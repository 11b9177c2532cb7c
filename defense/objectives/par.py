"""PAR, perturb and recover: finetuning that first goes far away from the model it starts from (CVPR 2025).

No augmentation and no assumption about the trigger: whatever the old embeddings hold is left behind, a backdoor too,
and CLIP's loss on clean pairs rebuilds what captions say.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from train.objective import EVERYTHING, START, Clock, Features, Loss, Objective, clip_loss


@dataclass(frozen=True, kw_only=True)
class Par(Objective):
    """CLIP's loss - push_weight x 1/2 (S_img [S_img <= far] + S_txt [S_txt <= far]).

    S: over a batch, the mean squared distance of normalised embeddings to those of the same images (captions) by the
    model that the run began with: 0 at first, 2 for embeddings that have nothing to do with the old ones, 4 at most.
    A modality that is far enough is pushed no more. The logit scale rests, as in the authors' code.

    Ours: the old model is in evaluation mode, where a BatchNorm has its running statistics. Their learning rate falls
    linearly to a tenth over the first half, then as a cosine; ours is the preset's.
    """

    summary: ClassVar[str] = "finetuning that first goes far away from the model it starts from"
    from_start: ClassVar[bool] = True
    far: float = 2.15
    """tau of the paper, from which on a modality is pushed no more; there tried from 1 to 3."""
    push_weight: float = 1.0
    """Of both distances; 0 is CLIP's loss alone."""

    def __post_init__(self) -> None:
        if not 0 < self.far <= 4:
            raise ValueError(f"far is a squared distance of unit vectors, above 0 and at most 4, not {self.far}")
        if self.push_weight < 0:
            raise ValueError(f"push_weight cannot be negative, it is {self.push_weight}")

    def trainable(self, clock: Clock) -> frozenset[str]:
        return EVERYTHING - {"scale"}

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        clip = clip_loss(features.images["image"], features.texts["text"], scale)
        images = moved(features.images["image"], features.images[START + "image"])
        texts = moved(features.texts["text"], features.texts[START + "text"])
        push = sum(torch.where(distance <= self.far, distance, 0.0) for distance in (images, texts)) / 2
        return Loss(clip - self.push_weight * push, {"clip": clip, "images_moved": images, "texts_moved": texts})


def moved(now: Tensor, before: Tensor) -> Tensor:
    """Mean squared distance of two sets of embeddings, row by row: (). now, before: (N, D)."""
    return (now - before).square().sum(dim=1).mean()
