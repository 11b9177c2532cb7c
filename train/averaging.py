"""The mean of every gradient over the ranks: DistributedDataParallel's, on CPUs but for the embedding of tokens.

A batch holds a few hundred of 49,408 tokens, and the gradient of all others is zero. Sent whole, as DDP sends it, it
is 86% of what the demo's ranks tell each other, and an eighth of their time: copied into DDP's bucket and out of it,
and through gloo's loopback. On GPUs it stays with DDP: nccl works beside the backward pass, and to ask which tokens
there are would be a wait.
"""

from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from train.encoder import Encoder
from train.objective import Objective
from train.ranks import Place

TOKENS = "token_embedding.weight"  # as open_clip's text towers call it


def distributed(encoder: Encoder, objective: Objective, place: Place) -> nn.Module:
    """The encoder, or around it what averages its gradients in the backward pass; `finish` them after it."""
    if place.ranks == 1:
        return encoder
    on_cpu = place.device.type == "cpu"
    if on_cpu:
        apart = [name for name, _ in encoder.named_parameters() if name.endswith(f".{TOKENS}")]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(encoder, apart)
        for name in apart:  # ranks begin with the weights of the first, these too
            dist.broadcast(encoder.get_parameter(name).data, 0)
    freezes = type(objective).trainable is not Objective.trainable
    # Without this, DDP sorts its buckets anew after the first step, a resumed run at another step than one that went
    # through. From three ranks on, the order in which gloo adds up a gradient depends on its place in the bucket.
    fixed = freezes or (on_cpu and place.ranks > 2)
    return DistributedDataParallel(encoder, device_ids=None if on_cpu else [place.device], find_unused_parameters=fixed)


def finish(learner: nn.Module, texts: dict[str, Tensor]) -> None:
    """The mean of what DDP left out, in place. texts: this rank's, int64 (B, L) by view, -1 where there is none."""
    if not isinstance(learner, DistributedDataParallel):
        return
    encoder = cast(Encoder, learner.module)
    for name in learner.parameters_to_ignore:
        gradient = encoder.get_parameter(name).grad
        if gradient is not None:  # the text tower learns now, on every rank alike
            average_rows(gradient, torch.cat(list(texts.values())))


def average_rows(gradient: Tensor, mine: Tensor) -> None:
    """Mean over ranks, in place, of a gradient (V, D) whose rows are zero on a rank but for those that it names.

    mine: int64 of any shape, the same on every rank; what is below 0 names no row. Rows that no rank names are not
    read. The order of additions follows from what all ranks name, so from the global batch.
    """
    named = mine.new_empty((dist.get_world_size() * len(mine), *mine.shape[1:]))
    dist.all_gather_into_tensor(named, mine.contiguous())
    there = torch.zeros(len(gradient), dtype=torch.bool)
    there[named[named >= 0]] = True
    rows = there.nonzero()[:, 0]
    part = gradient[rows] / dist.get_world_size()
    dist.all_reduce(part)
    gradient[rows] = part
