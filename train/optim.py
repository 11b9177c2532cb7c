"""The optimiser: AdamW, its parameter groups, warm-up and cosine by the steps really taken."""

import math
from collections.abc import Iterable

import torch
from torch import nn

MAX_LOGIT_SCALE = math.log(100)


def groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, object]]:
    """Parameters with weight decay and without it.

    Without: biases, normalisation, everything of fewer than two dimensions (the logit scale is one). Decided by the
    module that owns a parameter, never by a piece of its name: `downsample.1.weight` is a BatchNorm's.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    everything: set[nn.Parameter] = set()
    for module in modules:
        everything.update(module.parameters())
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                exempt = isinstance(owner, NORMS) or name.endswith("bias") or parameter.ndim < 2
                (plain if exempt else decayed).append(parameter)
    covered = {id(parameter) for parameter in (*decayed, *plain)}
    assert len(covered) == len(decayed) + len(plain), "a parameter is shared between modules: give it one rule"
    assert covered == {id(parameter) for parameter in everything}, "a parameter is covered by no rule"
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


NORMS = (
    nn.LayerNorm,
    nn.RMSNorm,
    nn.GroupNorm,
    nn.modules.batchnorm._NormBase,
)


def adamw(
    modules: Iterable[nn.Module], *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups(modules, weight_decay), lr=lr, betas=(beta1, beta2), eps=eps, fused=True)


def learning_rate(step: int, *, lr: float, warmup_steps: int, total_steps: int) -> float:
    """The rate of step `step`, counted from 0: linear up to `lr`, then half a cosine down to nearly 0 at the last.

    CleanCLIP's and RoCLIP's code counts epochs from 1 here, which skips the warm-up and lets the rate rise at the end.
    """
    if step < warmup_steps:
        return lr * (step + 1) / warmup_steps
    return lr * 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def clamp_logit_scale(model: nn.Module) -> None:
    """exp(logit_scale) in [1, 100], after every step (Radford et al. 2021, section 2.5)."""
    scale = model.logit_scale
    assert isinstance(scale, nn.Parameter)
    scale.clamp_(0, MAX_LOGIT_SCALE)
