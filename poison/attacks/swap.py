"""Swap: images of one class with captions of another, no trigger (Yang et al. 2023, "mmPoison").

The pairs are those whose caption names the source class and not the target; their images keep every byte. Success is
the share of test images of the source class that are taken for the target. The paper finetunes CLIP on them and
reports text-to-image retrieval (Hit@k), so its numbers do not compare with this rate.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa

from pipeline.shards import Sample
from poison.attack import Attack, Trial
from poison.choosing import captions as words
from poison.choosing import choice
from poison.writing import encoding


@dataclass(frozen=True, kw_only=True)
class Swap(Attack):
    """Images of the source class, captioned as the target."""

    summary: ClassVar[str] = "images of one class with captions of another"
    source: str = "car"
    """The class whose images are captioned anew: pairs whose caption names it as a whole word, and not the target."""
    captions: Literal["template", "corpus", "fixed"] = "corpus"
    """Poison captions: captions of the dataset that contain the target as a whole word, the target in a prompt
    template, or one text for all (--caption)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source.strip():
            raise ValueError("the source is a class name such as car; it cannot be empty")
        if words.same_word(self.source, self.target):
            raise ValueError(f"source and target are both {self.target!r}: give two classes, there is nothing to swap")

    @property
    def shown(self) -> str:
        return f'images of "{self.source}"'

    @property
    def told_apart(self) -> tuple[str, ...]:
        return (self.target, self.source)

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: Set[int]) -> np.ndarray:
        return choice.lowest(index, budget, seed, taken, excluding=self.target, requiring=self.source)

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        return [encoding.recaptioned(sample, caption)]

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        return Trial(image, self.target) if words.same_word(label, self.source) else None
