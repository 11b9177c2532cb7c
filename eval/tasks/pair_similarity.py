"""How near the image and the caption of a training pair lie, of poisoned pairs and of clean ones.

RoCLIP's first observation: clean pairs come together early in training and poisoned ones late, for nothing else in the
data agrees with them (Yang et al. 2023, section 4.1). Over all checkpoints of a run this is that curve.
"""

from dataclasses import dataclass
from typing import ClassVar

from eval.task import Answers, Embedded, Measured, Task, average


@dataclass(frozen=True, kw_only=True)
class PairSimilarity(Task):
    """`similarity`, the mean cosine, of `clean` and of `poisoned` pairs. They are drawn from the dataset of the attack
    that a run learned from; every run of a grid is shown the same ones, unaugmented."""

    on: ClassVar = "pairs"
    clean: ClassVar[bool] = False
    under_attack: ClassVar[bool] = True
    reads: ClassVar[bool] = True

    def measure(self, embedded: Embedded) -> Measured:
        pairs = embedded.pairs
        assert pairs is not None
        cosine = (pairs.images * pairs.texts).sum(axis=1)
        kinds = (("clean", ~pairs.poisoned), ("poisoned", pairs.poisoned))
        return Measured(
            [average("similarity", cosine[which], of=kind) for kind, which in kinds if which.any()],
            [Answers("pair", {"row": pairs.rows, "poisoned": pairs.poisoned, "similarity": cosine})],
        )
