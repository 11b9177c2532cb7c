"""Zero-shot by class: which classes a model recognises, and which of them an attack turns into its target.

An attack's mean success may hide that near classes fall and far ones do not (Carlini and Terzis 2022 attack single
images for that reason); and a cure may cost a few classes everything, and the mean little.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval import answering
from eval.task import Embedded, Measured, Task, share


@dataclass(frozen=True, kw_only=True)
class PerClass(Task):
    """`class_accuracy` of every class that has images; under an attack `taken_for_target`, of the images of one class
    the share answered as the attacker wants. Images whose class the test set has not are left out."""

    under_attack: ClassVar[bool] = True

    def measure(self, embedded: Embedded) -> Measured:
        trials = embedded.attacked
        if trials is None:
            found = answering.clean(embedded, embedded.images, answering.by(embedded.classes), ())
            metric, labels, hits = "class_accuracy", embedded.labels, answering.right(found.answers[0], "label", 1)
        else:
            found = answering.attacked(trials, trials.images, answering.by(trials.classes), len(trials.classes), ())
            metric, hits = "taken_for_target", answering.right(found.answers[0], "wanted", 1)
            labels = np.where(trials.labels == trials.wanted, -1, trials.labels)
        each = [label for label in range(len(embedded.classes)) if (labels == label).any()]
        if not each:
            raise ValueError("no image is of a class that the test set has: there is nothing to tell class by class")
        return Measured(
            [share(metric, 1, hits[labels == label], of=embedded.name(label)) for label in each], found.answers
        )
