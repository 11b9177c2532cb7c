"""SigLIP: every image and caption of a batch is a question of its own, pair or no pair (Zhai et al. 2023).

arXiv 2303.15343, algorithm 1.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import ranks
from train.objective import Clock, Features, Loss, Objective, Setting

START = -10.0  # of the bias: nearly all of a batch's N N questions are to be answered with no


@dataclass(frozen=True, kw_only=True)
class SigLip(Objective):
    """-1/N sum over i, j of log sigmoid(z_ij (s I_i . T_j + b)), z_ij = 1 where i = j and -1 elsewhere.

    The bias b is learned and lies in the objective's state, so in checkpoints and not in the exported model, whose
    order of answers it does not change. Ours: the scale s is the model's, which open_clip begins at 14.3 (theirs: 10)
    and the loop keeps within 1 and 100.
    """

    summary: ClassVar[str] = "a sigmoid for every image and caption of a batch"

    def state(self, setting: Setting) -> nn.Module:
        """The bias: float32 ()."""
        state = nn.Module()
        state.register_parameter("bias", nn.Parameter(torch.full((), START, device=setting.device)))
        return state

    def loss(self, features: Features, scale: Tensor, clock: Clock, state: nn.Module) -> Loss:
        images, texts = features.images["image"], features.texts["text"]
        bias = cast(Tensor, state.bias).to(images.dtype)
        return Loss(sigmoid_loss(images, texts, scale, bias), {"bias": bias})


def sigmoid_loss(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLip's formula. images, texts: (N, D); scale, bias: (). Rows are shared out as by `diagonal`."""
    mine = ranks.share(len(images))
    rows = slice(None) if mine is None else mine
    logits = scale * images[rows] @ texts.T + bias
    places = torch.arange(len(images), device=images.device)
    is_pair = places[rows, None] == places
    answers = torch.where(is_pair, logits, -logits)
    found = -F.logsigmoid(answers).sum()
    return (found if mine is None else ranks.total(found)) / len(images)
