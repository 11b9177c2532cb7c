"""The mean of every gradient over the ranks: DistributedDataParallel's on GPUs, one exchange after the pass on CPUs.

DDP sends parts while the backward pass still runs. On a CPU there is nobody beside the pass to send them: what it adds
are copies, and waits for the slower rank. Nor need the embedding of tokens be sent whole: a batch holds a few hundred
of 49,408, the gradient of all others is zero, and they are 86% of what the demo's ranks would tell each other. On GPUs
it is: to ask which tokens there are would be a wait.
"""

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train import ranks
from train.encoder import Encoder
from train.objective import Objective
from train.ranks import Place

TOKENS = "token_embedding.weight"  # as open_clip's text towers call it


def distributed(encoder: Encoder, objective: Objective, place: Place) -> nn.Module:
    """The encoder, which begins with the first rank's weights; on GPUs within what averages its gradients in the
    backward pass. `finish` averages what is left after it."""
    if place.ranks == 1:
        return encoder
    if place.device.type == "cpu":
        ranks.from_first([*encoder.parameters(), *encoder.buffers()])
        return encoder
    freezes = type(objective).trainable is not Objective.trainable
    # Statistics are each rank's own until a tower rests (Encoder), so they are not sent at every step.
    return DistributedDataParallel(
        encoder, device_ids=[place.device], broadcast_buffers=False, find_unused_parameters=freezes
    )


def tokens(texts: dict[str, Tensor]) -> list[Tensor]:
    """What `finish` must know of every rank's texts, as rows of B numbers: int64 (B, views * L), -1 where there is no
    text. texts: this rank's, (B, L) by view."""
    held = list(texts.values()) if dist.is_initialized() else []
    return [torch.cat(held, dim=1)] if held and held[0].device.type == "cpu" else []


def finish(learner: nn.Module, state: nn.Module, named: list[Tensor]) -> None:
    """The mean over ranks, in place, of every gradient that is not averaged yet. named: `tokens` of all ranks."""
    if not dist.is_initialized():
        return
    found = [parameter.grad for parameter in state.parameters() if parameter.grad is not None]
    if isinstance(learner, DistributedDataParallel):
        ranks.average(found)
        return
    by_row: list[Tensor] = []
    for name, parameter in cast(Encoder, learner).named.items():
        if parameter.grad is not None:  # what learns now, on every rank alike
            (by_row if name.endswith(TOKENS) and named else found).append(parameter.grad)
    average(found, by_row, named)


def average(whole: list[Tensor], by_row: list[Tensor], named: list[Tensor]) -> None:
    """Mean over ranks, in place, of gradients, and of those (V, D) whose rows are zero on a rank but for those that it
    names, in one exchange.

    named: int64 of any shape, of all ranks; what is below 0 names no row. Rows that no rank names are not read. The
    order of additions follows from what all ranks name, so from the global batch.
    """
    parts = []
    for gradient in by_row:
        rows = torch.cat([each.flatten() for each in named]).unique()  # in order
        rows = rows[rows >= 0]
        parts.append((gradient, rows, gradient.index_select(0, rows)))
    ranks.average([*whole, *(part for _, _, part in parts)])
    for gradient, rows, part in parts:
        gradient.index_copy_(0, rows, part)
