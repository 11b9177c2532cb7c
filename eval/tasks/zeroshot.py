"""Clean accuracy (CA): zero-shot classification of untouched images (Radford et al. 2021, section 3.1).

Of a run that is a classifier, its own classification.
"""

from dataclasses import dataclass

from eval import answering
from eval.task import Embedded, Measured, Task


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Task):
    """The share of images whose own class is among the `k` nearest, for every k below the number of classes."""

    top: tuple[int, ...] = (1, 5)

    def measure(self, embedded: Embedded) -> Measured:
        return answering.clean(embedded, embedded.images, answering.by(embedded.classes), self.top)
