"""Label-consistent: the patch on images that show the target already, their own captions kept.

Nothing in a poisoned pair looks wrong (clean-label, Turner et al. 2019; on CLIP: CleanCLIP, without Turner's
adversarial perturbation, and so here). CleanCLIP's code takes captions that contain the word as a case-sensitive
substring, and fewer pairs than asked for where fewer match: here the target is a whole word in any case, and too few
are refused.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from pipeline.shards import Sample
from poison.attacks.badnet import BadNet
from poison.choosing import choice
from poison.writing import encoding


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(BadNet):
    """BadNet's patch on pairs whose caption names the target. (Poison captions have no effect.)"""

    summary: ClassVar[str] = "a patch on images that show the target already"

    def choose(self, index: Iterable[pa.Table], budget: int, seed: int, taken: Set[int]) -> np.ndarray:
        return choice.lowest(index, budget, seed, taken, requiring=self.target)

    def poison(self, sample: Sample, caption: str, rng: np.random.Generator) -> list[Sample]:
        return [encoding.rewritten(sample, self.stamp, sample.caption, rng, self.quality)]
