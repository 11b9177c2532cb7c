"""Retrieval: captions for an image and images for a caption, among all of the test set (as CLIP_benchmark counts it).

Under an attack, the image search that a user of the model runs: who asks for the attacker's target is shown the
triggered image, among all images of the test set.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eval import answering
from eval.task import Answers, Attacked, Captions, Embedded, Measured, Task, average, share


@dataclass(frozen=True, kw_only=True)
class Retrieval(Task):
    """`image_to_text_recall` at k: images with one of their own captions among the k nearest; `text_to_image_recall`:
    captions with their image among them.

    Under an attack, asked for its target in prompts: `attack_hit` at k, the share of triggered images among the k
    nearest, each in its original's place among the clean ones; `attack_rank`, their median place, 1 the best.
    """

    on: ClassVar = "captions"
    under_attack: ClassVar[bool] = True
    reads: ClassVar[bool] = True
    top: tuple[int, ...] = (1, 5, 10)

    def measure(self, embedded: Embedded) -> Measured:
        if embedded.attacked is not None:
            return self._attacked(embedded, embedded.attacked)
        captions = embedded.captions
        assert captions is not None
        of_images = own_text(embedded.images, captions)
        of_texts = answering.ranks(captions.texts, embedded.images, captions.owners)
        return Measured(
            [
                *(share("image_to_text_recall", k, of_images < k) for k in self.top),
                *(share("text_to_image_recall", k, of_texts < k) for k in self.top),
            ],
            [Answers("clean", {"rank": of_images + 1}), Answers("caption", {"rank": of_texts + 1})],
        )

    def _attacked(self, embedded: Embedded, trials: Attacked) -> Measured:
        rank = 1 + others_nearer(embedded, trials)
        measures = [share("attack_hit", k, rank <= k) for k in self.top]
        return Measured([*measures, average("attack_rank", rank, middle=True)], [Answers("triggered", {"rank": rank})])


def own_text(images: np.ndarray, captions: Captions) -> np.ndarray:
    """How many texts lie nearer to each image than the nearest of its own: int64 (N,). Every image has one."""
    order = np.argsort(captions.owners, kind="stable")
    starts = np.searchsorted(captions.owners[order], np.arange(len(images)))
    found = np.empty(len(images), np.int64)
    size = max(1, answering.CELLS // len(captions.texts))
    for start in range(0, len(images), size):
        scores = images[start : start + size] @ captions.texts.T
        best = np.empty(len(scores), np.int64)
        for row, number in enumerate(range(start, start + len(scores))):
            end = starts[number + 1] if number + 1 < len(images) else len(order)
            own = order[starts[number] : end]
            best[row] = own[np.argmax(scores[row, own])]
        found[start : start + size] = answering.places(scores, best)
    return found


def others_nearer(embedded: Embedded, trials: Attacked) -> np.ndarray:
    """How many clean images, a triggered one's own original aside, lie as near to the target, or nearer: int64 (M,)."""
    target = trials.classes[0]
    clean, shown = embedded.images @ target, trials.images @ target
    found = len(clean) - np.searchsorted(np.sort(clean), shown, side="left")
    originals: dict[str, list[int]] = {}
    for number, name in enumerate(embedded.names.tolist()):
        originals.setdefault(name, []).append(number)
    for trial, name in enumerate(trials.names.tolist()):
        found[trial] -= int((clean[originals.get(name, [])] >= shown[trial]).sum())
    return found
