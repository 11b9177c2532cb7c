"""Both towers and the logit scale as one module: pixels and tokens of any number of views in, embeddings out."""

import contextlib
import copy
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn

from train import ranks, transforms
from train.objective import EVERYTHING, START


class Encoder(nn.Module):
    """What DistributedDataParallel wraps, so that every parameter, the logit scale too, has its gradient averaged."""

    clip: Any  # an open_clip model
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        clip: nn.Module,
        mean: list[float],
        std: list[float],
        autocast: torch.dtype | None = None,
        locked: Set[str] = frozenset(),
    ) -> None:
        """autocast: run the towers in bfloat16 or float16; embeddings and everything after them stay float32.

        locked: towers that never learn, whatever an objective says.
        """
        super().__init__()
        self.clip, self.autocast, self.locked = clip, autocast, locked
        self.compiled: dict[str, Callable[[Tensor], Tensor]] = {}
        self.start: tuple[Encoder, ...] = ()  # in a tuple it is no part of this module, which is saved and learns
        for name, parameter in clip.named_parameters():
            if tower_of(name) in locked:
                parameter.requires_grad_(False)
        self.named = dict(clip.named_parameters())  # once: to walk over every module of it takes 1% of a small step
        # A convolutional tower is faster with channels last: by 13% on a CPU with AVX512, by more on GPUs.
        convolutions = sum(isinstance(module, nn.Conv2d) for module in self.clip.visual.modules())
        self.layout = torch.channels_last if convolutions > 1 else torch.contiguous_format
        self.clip.visual.to(memory_format=self.layout)
        dtype = next(clip.parameters()).dtype
        self.register_buffer("mean", torch.tensor(mean, dtype=dtype), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=dtype), persistent=False)

    def forward(
        self,
        images: dict[str, Tensor],
        texts: dict[str, Tensor],
        learn: Set[str] = EVERYTHING,
        present: Tensor | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """images: uint8 (B, 3, H, W) by view; texts: int64 (B, L) by view, of which `present` says which there are:
        int64 (P,), places in the views laid end to end; None: all.

        Returns embeddings (B, D) by view, not normalised, zero for a text that is not there, and exp(logit_scale).
        The views of a tower share one forward pass, so that batch statistics mix them, as CleanCLIP's do. What is not
        in `learn` has no gradient at all, and its batch statistics rest. After `keep_start` each view is there once
        more, as START + its name.
        """
        pixels = _joined(images).contiguous(memory_format=self.layout)
        pixels = transforms.normalised(pixels, self.mean, self.std)
        learn = learn - self.locked
        low = self.autocast is not None
        with torch.autocast(pixels.device.type, self.autocast) if low else contextlib.nullcontext():
            encode = self.compiled.get("image", self.clip.encode_image)
            image_features = self._tower(self.clip.visual, "image" in learn, encode, pixels)
            text_features = self._texts(texts, present, "text" in learn)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "scale" in learn):
            scale = self.clip.logit_scale.exp()
        image_views, text_views = _split(image_features, images), _split(text_features, texts)
        for start in self.start:
            old_images, old_texts, _ = start(images, texts, frozenset(), present)
            for views, old in ((image_views, old_images), (text_views, old_texts)):
                views |= {START + name: embeddings for name, embeddings in old.items()}
        return image_views, text_views, scale

    def keep_start(self) -> None:
        """Keep the model as it is now beside the one that learns: a second forward pass, without gradient."""
        self.start = (copy.deepcopy(self).requires_grad_(False),)

    def _texts(self, texts: dict[str, Tensor], present: Tensor | None, learns: bool) -> Tensor:
        if not texts:
            return self.mean.new_zeros(0)
        tower = self.clip.text if hasattr(self.clip, "text") else self.clip.transformer
        encode = self.compiled.get("text", self.clip.encode_text)
        tokens = _joined(texts)
        if present is None or len(present) == len(tokens):
            return self._tower(tower, learns, encode, tokens)
        found = self._tower(tower, learns, encode, tokens[present])
        return found.new_zeros(len(tokens), found.shape[1]).index_copy(0, present, found)

    def _tower(self, tower: nn.Module, learns: bool, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        if tower.training != (learning := self.training and learns):  # a walk over every module of it
            tower.train(learning)
            if not learning:
                ranks.from_first(tower.buffers())  # each rank took statistics of its own, and now all use them
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            features = encode(inputs)
        return features.to(self.mean.dtype)

    def compile(self) -> None:  # type: ignore[override]
        """Have torch.compile make faster code of both towers, at their first use. Embeddings agree up to rounding."""
        self.compiled = {"image": torch.compile(self.clip.encode_image), "text": torch.compile(self.clip.encode_text)}


def tower_of(parameter: str) -> str:
    """Which part of EVERYTHING a parameter of an open_clip model belongs to, by its name."""
    if parameter.startswith("logit_"):
        return "scale"
    return "image" if parameter.startswith("visual.") else "text"


def _joined(views: dict[str, Tensor]) -> Tensor:
    """All rows of all views; of a single view without a copy."""
    return torch.cat(list(views.values())) if len(views) > 1 else next(iter(views.values()))


def _split(features: Tensor, views: dict[str, Tensor]) -> dict[str, Tensor]:
    if len(views) == 1:
        return dict.fromkeys(views, features)
    return dict(zip(views, features.split([len(view) for view in views.values()]), strict=True)) if views else {}
