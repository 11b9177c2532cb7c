"""Named scales: model, batch, schedule. A preset is a value; it says nothing about the objective.

`--preset rn50-cc3m` fills in the defaults of `--model` and of every field of `Recipe`; each can still be given by
itself.
"""

import difflib
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from infra.config import Seldom
from train.transforms import Augment


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long, how fast and in which portions to learn."""

    batch: int = 128
    """Pairs in a global batch; every rank reads its share."""
    epochs: int = 1
    lr: float = 5e-4
    """Peak of the learning rate; it ends near 0."""
    warmup_steps: Annotated[int, Seldom] = 0
    """Steps of linear warm-up, part of the total."""
    weight_decay: Annotated[float, Seldom] = 0.1
    augment: Annotated[Augment, Seldom] = "none"
    """Augmentation of every image, besides what the objective does: flip_crop keeps 90-100% of it, mirrors half."""
    beta1: Annotated[float, tyro.conf.Suppress] = 0.9
    beta2: Annotated[float, tyro.conf.Suppress] = 0.999
    eps: Annotated[float, tyro.conf.Suppress] = 1e-8
    grad_clip: Annotated[float | None, Seldom] = None
    """The longest that the gradient of a step may be; a longer one is shortened. None: as long as it is."""
    lock: Annotated[Literal["image", "text"] | None, Seldom] = None
    """A tower that keeps its weights, and the statistics of its BatchNorm (LiT, arXiv 2111.07991)."""

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.grad_clip is not None and not self.grad_clip > 0:
            raise ValueError(f"grad_clip must be above 0, not {self.grad_clip}")
        for name in ("warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative, it is {getattr(self, name)}")


@dataclass(frozen=True)
class Preset:
    """model: its name; None where a run to start from brings its own."""

    model: str | None
    recipe: Recipe


RN50 = Recipe(batch=128, epochs=64, lr=5e-4, warmup_steps=10_000)  # CleanCLIP's pretraining (defaults of its code)
CLEANING = Recipe(batch=64, epochs=10, lr=1e-5, warmup_steps=50)  # CleanCLIP's finetuning, on 100,000 clean pairs

PRESETS = {
    # Seconds, for tests.
    "tiny": Preset("tiny-vit", Recipe(batch=16, epochs=2, lr=1e-3)),
    # Minutes on two cores, for the picture book: about 10,800 pairs, 1,180 steps; then about 4,100 pairs, 320 steps.
    "demo": Preset("picturebook-resnet", Recipe(batch=64, epochs=7, lr=3e-3, warmup_steps=118, beta2=0.98)),
    "demo-finetune": Preset(None, Recipe(batch=64, epochs=5, lr=2e-3, warmup_steps=32, beta2=0.98)),
    # About 3,000,000 pairs; 1,500,000 steps.
    "rn50-cc3m": Preset("RN50-quickgelu", RN50),
    # 1,000,000 pairs, as RoCLIP's code pretrains on them.
    "rn50-cc1m": Preset("RN50-quickgelu", replace(RN50, batch=512, epochs=24, lr=5e-5)),
    # open_clip's customary values for ViT-B/32 on about 10,000,000 pairs.
    "vitb32-cc12m": Preset(
        "ViT-B-32", Recipe(batch=1024, epochs=32, lr=5e-4, warmup_steps=10_000, weight_decay=0.2, beta2=0.98, eps=1e-6)
    ),
    "rn50-finetune": Preset(None, CLEANING),
    # CleanCLIP's supervised finetuning, on 50,000 labelled images.
    "rn50-supervised": Preset(None, Recipe(batch=80, epochs=10, lr=1e-4, warmup_steps=500, weight_decay=0.01)),
}


def pick(name: str) -> Preset:
    """Raises ValueError that lists the presets."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f" (perhaps you meant {near[0]!r})" if near else ""
        raise ValueError(f"no preset is named {name!r}{hint}; there are: {', '.join(PRESETS)}")
    return PRESETS[name]


def for_pretraining(name: str) -> dict[str, Any]:
    """Defaults of train.training.Pretraining. Raises ValueError for a preset that needs a run to start from."""
    preset = pick(name)
    if preset.model is None:
        raise ValueError(f"preset {name} names no model: it is for finetuning; use train/finetune.py, or --preset demo")
    return {"preset": name, "model": preset.model, "recipe": preset.recipe}


def for_finetuning(name: str) -> dict[str, Any]:
    """Defaults of train.training.Finetuning; the model is that of the run."""
    return {"preset": name, "recipe": pick(name).recipe}
