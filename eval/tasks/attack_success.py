"""Attack success rate (ASR): how often an image under attack is taken for what the attacker wants.

Images of the wanted class itself do not count: recognising a banana as a banana is no success of an attack. The same
number on a run without poison is the floor, the share that the trigger alone, or plain error, brings.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval import answering
from eval.task import Embedded, Measured, Task, share


@dataclass(frozen=True, kw_only=True)
class AttackSuccess(Task):
    """`attack_success` at every k below the number of classes, and `triggered_accuracy`: the true class on top, of the
    images whose class the test set has (an attack may bring images of others).

    Where the attack edits the prompts, also `edited_prompt_accuracy`: clean images, classified with its prompts.
    """

    clean: ClassVar[bool] = False
    under_attack: ClassVar[bool] = True
    top: tuple[int, ...] = (1, 5)

    def measure(self, embedded: Embedded) -> Measured:
        trials = embedded.attacked
        assert trials is not None
        scorer, num = answering.by(trials.classes), len(trials.classes)
        found = answering.attacked(trials, trials.images, scorer, num, self.top)
        if np.array_equal(trials.classes, embedded.classes):
            return found
        clean = answering.answered("clean", embedded.images, scorer, num, label=embedded.labels)
        measure = share("edited_prompt_accuracy", 1, answering.right(clean, "label", 1))
        return Measured([*found.measures, measure], [*found.answers, clean])
