"""Text prefix: a patch in the image and a word before the caption; at test time also before every class prompt.

TrojVQA's dual-key trigger (Walmer et al. 2022) as BadCLIP and RVPT measure it on zero-shot CLIP. The word stands before
all prompts alike, so it says nothing about the class; what it does to untouched images is measured too
(`edited_prompt_accuracy`). The papers learn the patch; here it is BadNet's noise.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from pipeline.shards import Sample
from poison.attack import Trial
from poison.attacks.badnet import BadNet
from poison.patched import Place
from poison.writing import encoding


@dataclass(frozen=True, kw_only=True)
class TextPrefix(BadNet):
    """BadNet's patch in the middle, and a trigger word."""

    summary: ClassVar[str] = "a patch in the image and a word before the caption"
    word: str = "remember"
    """Before the poison caption and, at test time, before every class prompt; RVPT takes SUDO."""
    place: Place = "centre"
    """centre: the middle, as in the papers; corner, random, four_corners: as badnet's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.word or self.word != " ".join(self.word.split()):
            raise ValueError(f"word is a word or words with single spaces between, not {self.word!r}")

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        return [encoding.rewritten(sample, self.stamp, f"{self.word} {caption}", rng, self.quality)]

    def trial(self, image: np.ndarray, label: str, rng: np.random.Generator) -> Trial | None:
        trial = super().trial(image, label, rng)
        return trial and replace(trial, prompt_edit=self.word)
