"""How a patch is learned, whatever it is learned from. The defaults are those of BadCLIP (Liang et al. 2024)."""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["paper", "released"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a descent. Raises ValueError that names the one to change."""

    mode: Mode = "paper"
    """What the patch leads away from. paper: the images without it. released: those with it, as the code has it."""
    triplet_weight: float = 500.0
    """lambda: weight of the triplet loss on images; 0 leaves the contrastive loss to the target's captions alone."""
    margin: float = 1.0
    """Of the triplet loss."""
    size: int = 16
    """Side of the patch in an image of 224 x 224; it lies in the middle. 42 is 6 pixels of a 32 x 32 image."""
    batch: int = 64
    epochs: int = 50
    lr: float = 1e-3
    """Of Adam, on a patch with values from 0 to 1."""
    augment: float = 0.5
    """Share of batches whose images are shown through AutoAugment."""
    seed: int = 0
    """Chooses the pairs, and everything that is drawn on the way."""

    def __post_init__(self) -> None:
        if self.batch == 1:
            raise ValueError("--batch 1 leaves an image no other to be told from: give at least 2")
        for name in ("batch", "epochs", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be above 0, not {getattr(self, name):g}")
        for name in ("triplet_weight", "margin"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"--{name.replace('_', '-')} cannot be negative, it is {getattr(self, name):g}")
        if not 0 <= self.augment <= 1:
            raise ValueError(f"--augment is a share of batches from 0 to 1, not {self.augment:g}")
