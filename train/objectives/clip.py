"""Plain CLIP: the symmetric contrastive loss of Radford et al. 2021."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from train.objective import Clock, Features, Loss, Objective, clip_loss


@dataclass(frozen=True, kw_only=True)
class Clip(Objective):
    """Plain CLIP, no augmentation."""

    summary: ClassVar[str] = "CLIP's contrastive loss"

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        return Loss(clip_loss(features.images["image"], features.texts["text"], scale))
