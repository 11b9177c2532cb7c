"""Decoys: finetuning on images that bear random triggers, which shall mean what the image meant without them. Ours.

Unlearning stamps clean images with a trigger and keeps their labels: with one found by inverting the model (Neural
Cleanse, Wang et al. 2019) or with the worst perturbation of the moment (I-BAU, Zeng et al. 2022, arXiv 2110.03735).
Here it is whatever `defense.changing.decoys` draws, so nothing is searched for, and the meaning is held by the old
model, to which the images are shown as they are: clean images do not wake a backdoor.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from defense.changing.decoys import KINDS, decoy
from defense.objectives.par import moved
from train.objective import START, Clock, Features, Loss, Objective, Pair, Views, clip_loss


@dataclass(frozen=True, kw_only=True)
class Decoys(Objective):
    """1/2 [CLIP(I, T) + CLIP(D, T)] + hold_weight x 1/2 [S(I, I0) + S(D, I0)].

    I, D, T: embeddings of images, of their decoys and of captions; I0: of the images, without decoys, by the model
    that the run began with; S: over a batch, the mean squared distance of normalised embeddings, row by row. Images
    and decoys share one forward pass of 2N. A decoy is drawn anew in every epoch.
    """

    summary: ClassVar[str] = "finetuning on images that bear random triggers, held to what they meant without"
    from_start: ClassVar[bool] = True
    hold_weight: float = 10.0
    """Of both distances to the old model's embeddings; 0 is CLIP's loss on images and decoys."""
    changes: int = 2
    """How often an image is changed to make a decoy of it."""
    without: Literal["none", "patch", "blend", "warp"] = "none"
    """A kind of change to leave out, to see what it is worth."""

    def __post_init__(self) -> None:
        if self.hold_weight < 0:
            raise ValueError(f"hold_weight cannot be negative, it is {self.hold_weight}")
        if self.changes < 1:
            raise ValueError(f"changes is at least 1, not {self.changes}: a decoy without any is the image itself")

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        kinds = [kind for kind in KINDS if kind != self.without]
        return Views(
            {"image": pair.decoded, "decoy": decoy(pair.image, rng, kinds, self.changes)}, {"text": pair.caption}
        )

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        images, texts, start = features.images, features.texts["text"], features.images[START + "image"]
        clip = (clip_loss(images["image"], texts, scale) + clip_loss(images["decoy"], texts, scale)) / 2
        image, bearing = moved(images["image"], start), moved(images["decoy"], start)
        total = clip + self.hold_weight * (image + bearing) / 2
        return Loss(total, {"clip": clip, "images_moved": image, "decoys_moved": bearing})
