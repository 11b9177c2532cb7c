"""Control: no trigger and no new caption, but the chosen images are encoded again as an attack's would be.

With the seed and the target of an attack it takes the same pairs, so what it changes in a trained model is the confound
of re-encoding; what it scores at test time is how often a model takes untouched images for the target.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.shards import Sample
from poison.attack import Backdoor
from poison.writing import encoding


@dataclass(frozen=True, kw_only=True)
class Control(Backdoor):
    """The image as it is, encoded again. (Poison captions and the trigger's seed have no effect.)"""

    summary: ClassVar[str] = "no trigger and no new caption, only images encoded again"

    def stamp(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return image.copy()

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        return [encoding.rewritten(sample, self.stamp, sample.caption, rng, self.quality)]
