"""CleanCLIP: finetuning that adds self-supervision within each modality (Bansal et al. 2023, arXiv 2303.03323)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from PIL import Image
from torch import Tensor, nn

from defense.language.captions import eda
from infra.seeding import rng as seeded
from train.objective import Clock, Features, Loss, Objective, Pair, Views, clip_loss, cross_entropy


@dataclass(frozen=True, kw_only=True)
class CleanClip(Objective):
    """clip_weight x the CLIP loss of the originals + inmodal_weight x the in-modal loss (section 4 of the paper).

    In-modal: each original, image or caption, shall find its own augmented view among those of the batch. One
    direction only, the same scale as in the CLIP loss, gradient to both views. Augmented views never meet the other
    modality. Original and augmented view share one forward pass of 2N.
    """

    summary: ClassVar[str] = "finetuning that adds self-supervision within each modality"
    inmodal_weight: float = 1.0
    """lambda_2 of the paper; ablated there over 0.5, 1, 2, 4, 8."""
    clip_weight: float = 1.0
    """lambda_1 of the paper; 0 is self-supervision alone."""

    caption_views: Literal["fresh", "frozen"] = "fresh"
    """fresh: drawn in every epoch. frozen: once for the whole run, as in the authors' code."""

    def __post_init__(self) -> None:
        if self.inmodal_weight < 0 or self.clip_weight < 0:
            raise ValueError("inmodal_weight and clip_weight cannot be negative")
        if self.inmodal_weight == self.clip_weight == 0:
            raise ValueError("inmodal_weight and clip_weight are both 0: nothing would be learned")

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        """AutoAugment's ImageNet policy (it draws from torch's generator) on the stored image; EDA on the caption."""
        drawn = rng if self.caption_views == "fresh" else seeded(pair.seed, "frozen caption", pair.row)
        return Views(
            {"image": pair.decoded, "augmented": _policy()(pair.image)},
            {"text": pair.caption, "augmented": eda(pair.caption, drawn)},
        )

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        clip = clip_loss(features.images["image"], features.texts["text"], scale)
        images = cross_entropy(features.images["image"], features.images["augmented"], scale)
        texts = cross_entropy(features.texts["text"], features.texts["augmented"], scale)
        inmodal = (images + texts) / 2
        total = self.clip_weight * clip + self.inmodal_weight * inmodal
        return Loss(total, {"clip": clip, "inmodal": inmodal})


@functools.cache
def _policy() -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import AutoAugment

    return AutoAugment()
