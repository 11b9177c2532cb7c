"""Linear probe: the image tower alone, read by a logistic regression on clean labelled images (Radford et al. 2021,
section 3.2). No text and no prompt has a say, so this is what a backdoor does to whoever takes the features only.

Metrics as of zero-shot: `accuracy` clean, `attack_success` and `triggered_accuracy` under an attack.
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from eval import answering, logistic
from eval.logistic import Probe
from eval.task import Embedded, Labelled, Measured, Task


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Task):
    """`regularised`: an L2 penalty whose strength is chosen on a part of the training images, never on the test set,
    on embeddings of length 1, centred and brought to one scale. `papers`: CleanCLIP's (`logistic.adamw`)."""

    under_attack: ClassVar[bool] = True
    learns: ClassVar[bool] = True
    top: tuple[int, ...] = (1, 5)
    recipe: Literal["regularised", "papers"] = "regularised"
    epochs: int = 10
    """Of the recipe `papers`: CleanCLIP trains for 10, RoCLIP and SafeCLIP for 32."""
    seed: int = 0
    """Of the recipe `papers`: its start and its order. The other has no chance in it."""

    @property
    def called(self) -> str:
        return super().called if self.recipe == "regularised" else f"{super().called}-{self.recipe}"

    def measure(self, embedded: Embedded) -> Measured:
        train, trials = embedded.train, embedded.attacked
        assert train is not None
        probe, num = _fitted(self, train, len(embedded.classes)), len(embedded.classes)
        if trials is None:
            rows = self._rows(embedded.features(embedded.images), embedded.lengths)
            return answering.clean(embedded, rows, probe.scores, self.top)
        rows = self._rows(embedded.features(trials.images), trials.lengths)
        return answering.attacked(trials, rows, probe.scores, num, self.top)

    def fit(self, train: Labelled, num_classes: int) -> Probe:
        """On unscaled rows, as `_rows` gives them."""
        order = np.lexsort((train.names, train.labels))  # whatever the order they came in
        rows, labels = self._rows(train.images, train.lengths)[order], train.labels[order]
        if self.recipe == "papers":
            return logistic.adamw(rows, labels, num_classes, self.epochs, self.seed)
        middle = rows.mean(axis=0, dtype=np.float64)
        scale = np.sqrt(np.square(rows - middle).mean()) or 1.0
        scaled = (rows - middle) / scale
        strength = logistic.chosen(scaled, labels, train.names[order], num_classes)
        found = logistic.fit(scaled, labels, num_classes, strength)
        weight = found.weight / scale
        return Probe(weight, found.bias - weight @ middle)

    def _rows(self, images: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        return images * lengths[:, None] if self.recipe == "papers" and lengths is not None else images


_LAST: dict[str, Probe] = {}  # of the probe fitted last: every attack on a run asks the same one


def _fitted(task: LinearProbe, train: Labelled, num_classes: int) -> Probe:
    digest = hashlib.sha256(repr((task, num_classes, train.images.shape)).encode())
    for part in (train.images, train.labels, train.names, train.lengths):
        digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    key = digest.hexdigest()
    if key not in _LAST:
        probe = task.fit(train, num_classes)
        _LAST.clear()
        _LAST[key] = probe
    return _LAST[key]
