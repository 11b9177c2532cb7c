"""Supervised finetuning: a classifier of the vision encoder and a linear head, on labelled images.

CleanCLIP's other remedy (arXiv 2303.03323), for where clean labels are at hand.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from train.objective import Clock, Features, Loss, Objective, Pair, Setting, Views


@dataclass(frozen=True, kw_only=True)
class Supervised(Objective):
    """Cross-entropy of a linear head on the image embedding, un-normalised as in the authors' code.

    The vision encoder and the head learn together, the text tower and the logit scale rest. What comes of it is no
    CLIP any more: images and prompts have drifted apart, and the run is evaluated as a classifier, by its head. The
    export for open_clip holds the towers alone. Our weight decay leaves out normalisation as well as biases.
    """

    summary: ClassVar[str] = "a classifier of the vision encoder and a linear head"
    classifies: ClassVar[bool] = True

    def views(self, pair: Pair, rng: np.random.Generator) -> Views:
        return Views({"image": pair.decoded}, {})

    def state(self, setting: Setting) -> nn.Module:
        """The head, initialised as torch does it."""
        if not setting.classes:
            raise ValueError("supervised learns from labelled images, and these have no labels: see testset")
        return nn.Linear(setting.width, setting.classes)

    def trainable(self, clock: Clock) -> frozenset[str]:
        return frozenset({"image"})

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        raw = features.raw["image"]
        weight, bias = (parameter.to(raw.dtype) for parameter in self.classifier(dict(state.named_parameters())))
        logits = F.linear(raw, weight, bias)
        right = logits.detach().argmax(dim=1) == features.labels
        return Loss(F.cross_entropy(logits, features.labels), {"accuracy": right.to(raw.dtype).mean()})

    def classifier(self, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return state["weight"], state["bias"]
