"""CleanCLIP's step with both views of a tower in one forward pass, as ours, against one pass a view.

    python -m tests.gpu.passes --models RN50 ViT-B-32 --batch 512 [--device cuda] [--rounds 8]

Whoever encodes the originals and then their augmented views gives each its own batch statistics; the paper's code
mixes them, as ours does. Where no BatchNorm is, the losses are equal.
"""

import argparse
from collections.abc import Set
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from defense.objectives.cleanclip import CleanClip
from tests.support import figures, timing
from train import optim
from train.encoder import Encoder
from train.objective import Clock
from train.step import Way, learn
from train.stream import Batch

VIEWS = {"images": ("image", "augmented"), "texts": ("text", "augmented")}


class Apart(nn.Module):
    """An encoder, each view of which passes alone: the first of the images with the first of the texts, and so on."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.mean = encoder, encoder.mean

    def forward(
        self, images: dict[str, Tensor], texts: dict[str, Tensor], learn: Set[str], present: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        assert len(present) == sum(map(len, texts.values())), "every text is there"
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
        for image, text in zip(images, texts, strict=True):
            parts = self.encoder({image: images[image]}, {text: texts[text]}, learn)
            for one, part in zip(found, parts[:2], strict=True):
                one.update(part)
        return *found, parts[2]


def step(learner: nn.Module, update: optim.Update, given: Batch) -> Tensor:
    loss, _ = learn(learner, CleanClip(), nn.Module(), given, Clock(0, 0, 1, 0), Way(), scaled=update.scaled)
    update.take()
    return loss.total.detach()


def compared(name: str, pairs: int, device: torch.device, rounds: int) -> dict[str, Any]:
    encoder, given = timing.encoder(name, device), timing.batch(name, pairs, device, VIEWS["images"], VIEWS["texts"])
    update = optim.Update(optim.adamw([encoder], lr=1e-6, weight_decay=0.1, beta1=0.9, beta2=0.98, eps=1e-8))
    ways = {
        "one_pass": partial(step, encoder, update, given),
        "two_passes": partial(step, Apart(encoder), update, given),
    }
    ways["one_pass"]()  # so that the optimiser's state lies there in both peaks
    found: dict[str, Any] = {f"{way}_peak_gib": timing.peak_gib(ways[way], device) for way in ways}
    measured = timing.in_turn(ways, rounds, device)
    for way in ways:
        found[f"{way}_pairs_per_second"] = pairs * 1000 / timing.middle(measured, way)
    return found | {"one_over_two": timing.middle(measured, "one_pass", "two_passes")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["RN50", "ViT-B-32"])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    device = torch.device(given.device)
    print(figures.line({name: compared(name, given.batch, device, given.rounds) for name in given.models}))


if __name__ == "__main__":
    main()
