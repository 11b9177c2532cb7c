"""Clean accuracy (CA): zero-shot classification of untouched images (Radford et al. 2021, section 3.1).

Of a run that is a classifier, its own classification.
"""

from dataclasses import dataclass

from eval.task import Embedded, Measure, Task, ranks, share


@dataclass(frozen=True, kw_only=True)
class ZeroShot(Task):
    """The share of images whose own class is among the `k` nearest, for every k below the number of classes."""

    top: tuple[int, ...] = (1, 5)

    def measure(self, embedded: Embedded) -> list[Measure]:
        rank = ranks(embedded.images, embedded.classes, embedded.labels)
        kept = [k for k in self.top if k < len(embedded.classes)]
        return [share("accuracy", k, rank < k) for k in kept]
