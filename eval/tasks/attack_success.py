"""Attack success rate (ASR): how often an image under attack is taken for what the attacker wants.

Images of the wanted class itself do not count: recognising a banana as a banana is no success of an attack. The same
number on a run without poison is the floor, the share that the trigger alone, or plain error, brings.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval.task import Embedded, Measure, Task, ranks, share


@dataclass(frozen=True, kw_only=True)
class AttackSuccess(Task):
    """`attack_success` at every k below the number of classes, and `triggered_accuracy`: the true class on top, of the
    images whose class the test set has (an attack may bring images of others).

    Where the attack edits the prompts, also `edited_prompt_accuracy`: clean images, classified with its prompts.
    """

    under_attack: ClassVar[bool] = True
    top: tuple[int, ...] = (1, 5)

    def measure(self, embedded: Embedded) -> list[Measure]:
        attacked = embedded.attacked
        assert attacked is not None
        counted = attacked.labels != attacked.wanted
        if not counted.any():
            raise ValueError("there is no test image that the attack applies to: all are of the class it wants")
        images, labels, wanted = attacked.images[counted], attacked.labels[counted], attacked.wanted[counted]
        answer = ranks(images, attacked.classes, wanted)
        kept = [k for k in self.top if k < len(attacked.classes)]
        measures = [share("attack_success", k, answer < k) for k in kept]
        if (known := labels >= 0).any():
            own = ranks(images[known], attacked.classes, labels[known])
            measures.append(share("triggered_accuracy", 1, own < 1))
        if not np.array_equal(attacked.classes, embedded.classes):
            clean = ranks(embedded.images, attacked.classes, embedded.labels)
            measures.append(share("edited_prompt_accuracy", 1, clean < 1))
        return measures
