"""The optimiser: AdamW, its parameter groups, warm-up and cosine by the steps really taken."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

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


class Update:
    """From gradients to a step: the scaler's factor taken out, clipped to a length, taken, forgotten."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        grad_clip: float | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """grad_clip: the longest that the gradient of all parameters together may be. scaler: for float16, whose
        smallest numbers gradients fall below; a step of which one is not finite is left out, and its factor halved."""
        self.optimizer, self.grad_clip, self.scaler = optimizer, grad_clip, scaler

    def scaled(self, loss: Tensor) -> Tensor:
        """What to descend in place of the loss."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def take(self) -> Tensor | None:
        """The gradient's length before it was clipped, where it is: a scalar, without a wait for a GPU."""
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        length = None
        if self.grad_clip is not None:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            length = nn.utils.clip_grad_norm_(parameters, self.grad_clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return length


@torch.no_grad()
def clamp_logit_scale(model: nn.Module) -> None:
    """exp(logit_scale) in [1, 100], after every step (Radford et al. 2021, section 2.5)."""
    scale = model.logit_scale
    assert isinstance(scale, nn.Parameter)
    scale.clamp_(0, MAX_LOGIT_SCALE)
