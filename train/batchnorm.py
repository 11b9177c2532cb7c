"""BatchNorm over the global batch: statistics of all ranks' rows, as one process would take them.

torch.nn.SyncBatchNorm wants GPUs. This one is made of all-reduces, so it works on gloo as on nccl.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(model: nn.Module) -> int:
    """Have every BatchNorm of a model take its statistics over all ranks while it learns; returns how many there are.

    Names, parameters and buffers stay as they are. Raises ValueError for a kind of BatchNorm that does more than
    torch's and timm's do.
    """
    from timm.layers.norm_act import BatchNormAct2d

    count = 0
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        if type(module) not in (*_NORMS, BatchNormAct2d) or not module.track_running_stats or module.momentum is None:
            raise ValueError(
                f"--sync-batchnorm does not know {name}, a {type(module).__name__}: leave it out or set another --model"
            )
        module.forward = _Synchronised(module)  # type: ignore[method-assign, assignment]
        count += 1
    return count


class _Synchronised:
    """What stands in for a BatchNorm's own forward."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        if norm.training:
            norm.num_batches_tracked.add_(1)
            found, mean, variance, count = _BatchNorm.apply(x, norm.weight, norm.bias, norm.eps)
            with torch.no_grad():  # the running variance is the unbiased one, as torch keeps it
                norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
                unbiased = variance * (count / (count - 1).clamp(min=1))
                norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
        else:
            found = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
        return norm.act(norm.drop(found)) if hasattr(norm, "act") else found  # timm's BatchNormAct2d


class _BatchNorm(torch.autograd.Function):
    """x, float (B, C, ...) -> itself normalised over all ranks' B, and the mean, variance, both (C,), and count, ().

    float32 at least within, whatever x is. The gradient is that of the sum of all ranks' losses, as of ranks.gather.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        ctx.dims = [0, *range(2, x.dim())]
        ctx.shape = [1, -1] + [1] * (x.dim() - 2)
        rows = wide.new_tensor([x.numel() / x.shape[1]])
        # Each rank's mean and the squares about it, put together as in Chan et al. 1979: a difference of two large sums
        # of squares would have no digits left.
        own = wide.mean(ctx.dims)
        squares = (wide - own.view(ctx.shape)).square().sum(ctx.dims)
        counts, means, squares = _all(rows), _all(own), _all(squares)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        inverse = (variance + eps).rsqrt()
        found = (wide - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        if weight is not None:
            found = found * weight.view(ctx.shape)
        if bias is not None:
            found = found + bias.view(ctx.shape)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return found.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight, mean, inverse, count = ctx.saved_tensors
        wide, slope = x.to(mean.dtype), gradients[0].to(mean.dtype)
        normal = (wide - mean.view(ctx.shape)) * inverse.view(ctx.shape)
        sums = torch.stack([slope.sum(ctx.dims), (slope * normal).sum(ctx.dims)])
        of_weight, of_bias = sums[1].clone(), sums[0].clone()  # this rank's part: they are averaged with all others
        dist.all_reduce(sums)
        by_mean, by_deviation = (each.view(ctx.shape) / count for each in sums)
        factor = inverse if weight is None else inverse * weight
        back = (slope - by_mean - normal * by_deviation) * factor.view(ctx.shape)
        learned = None if weight is None else of_weight.to(weight.dtype)
        return back.to(x.dtype), learned, None if weight is None else of_bias.to(weight.dtype), None


def _all(part: Tensor) -> Tensor:
    """Every rank's (C,), as (ranks, C)."""
    whole = part.new_empty((dist.get_world_size(), *part.shape))
    dist.all_gather_into_tensor(whole, part.contiguous()[None])
    return whole
