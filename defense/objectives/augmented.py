"""CLIP's loss on augmented pairs: what RoCLIP trains on between its matched epochs, and what it is held against.

Augmentation alone keeps some poisons from being learned; what RoCLIP achieves counts only beside it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from defense.changing.augment import strong
from defense.language.captions import eda
from train.objective import Pair, Views
from train.objectives.clip import Clip


@dataclass(frozen=True, kw_only=True)
class Augmented(Clip):
    """Augmented views in place of the originals, image and caption, in every epoch anew."""

    summary: ClassVar[str] = "CLIP's loss on augmented pairs"
    crop: float = 0.08
    """The smallest share of an image that its random crop keeps."""

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is a share of the image, above 0 and at most 1, not {self.crop}")

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        return Views({"image": strong(pair.image, self.crop)}, {"text": eda(pair.caption, rng)})
