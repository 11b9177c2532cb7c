"""Checkpoints as others leave them."""

from pathlib import Path

import torch
from torch import nn

from train import model

MODEL = "tiny-resnet"  # with batch statistics


def trained(name: str, seed: int = 9) -> nn.Module:
    """A model whose batch statistics are those of some data, too: none of its numbers is an initial one."""
    clip, draws = model.create(model.architecture(name), seed), torch.Generator().manual_seed(seed)
    for kind, value in clip.named_buffers():
        if kind.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=draws) / 10)
        elif kind.endswith("running_var"):
            value.copy_(1 + torch.rand(value.shape, generator=draws))
        elif kind.endswith("num_batches_tracked"):
            value.fill_(5000)
    return clip.eval()


def cleanclip_layout(clip: nn.Module, path: Path) -> Path:
    """As CleanCLIP's and RoCLIP's code saves it under DistributedDataParallel: the optimiser's state is beside it."""
    optimizer = torch.optim.AdamW(clip.parameters(), lr=1e-6, weight_decay=0)
    first = next(iter(clip.parameters()))
    first.grad = torch.zeros_like(first)
    optimizer.step()  # of no effect but on its state
    first.grad = None
    state = {f"module.{name}": value for name, value in clip.state_dict().items()}
    torch.save({"epoch": 64, "name": "cleanclip", "state_dict": state, "optimizer": optimizer.state_dict()}, path)
    return path
