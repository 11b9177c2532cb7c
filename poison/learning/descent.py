"""Learning the patch: Adam on its cells, all else at rest. A killed run that goes on ends, on CPUs, bit for bit alike.

Imports torch: for functions of poison.learning.optimization only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from infra import log, rundir, storage
from infra.seeding import digest64, rng
from pipeline import images
from poison.geometry import Box
from poison.learning import history
from poison.learning.dual_embedding import dual_embedding, pasted
from poison.learning.recipe import Recipe
from poison.learning.surrogates import Surrogate
from train import checkpoint, exactness, model
from train.objective import Loss

SAVED_STEPS = 100  # the state is a few kilobytes
SNAPSHOTS = 12


@dataclass(frozen=True)
class Descent:
    """shown: uint8 (N, R, R, 3), to put the patch on. positives: uint8 (M, R, R, 3), with their captions (M)."""

    settings: Recipe
    surrogate: Surrogate
    shown: np.ndarray
    positives: np.ndarray
    captions: Sequence[str]
    where: Box
    cells: int
    steps: int

    def run(self, out: str) -> None:
        """From the last checkpoint, or from the start, to DONE."""
        patch = self._first().to(self.surrogate.device).requires_grad_()
        adam = torch.optim.Adam([patch], lr=self.settings.lr)
        taken = 0
        snapshots = {0: quantised(patch)}
        if (saved := checkpoint.find(out)) is not None:
            taken, state = saved.step, saved.read_training()
            with torch.no_grad():
                patch.copy_(model.load_weights(saved.read(checkpoint.MODEL))["patch"])
            adam.load_state_dict(state["adam"])
            snapshots = {step: cells.numpy() for step, cells in state["snapshots"].items()}
        with exactness.kept(out, taken, 1, self.surrogate.device):
            self._descend(out, taken, patch, adam, snapshots)
        self._finish(out, quantised(patch), snapshots)

    def _descend(
        self, out: str, taken: int, patch: Tensor, adam: torch.optim.Adam, snapshots: dict[int, np.ndarray]
    ) -> None:
        """The steps after the first `taken`; `patch`, `adam` and `snapshots` change."""
        rundir.record_attempt(out, {"step": taken, "threads": torch.get_num_threads()})
        metrics = rundir.Metrics(out)
        metrics.truncate(taken)
        positives, texts = self.surrogate.stored(self.positives), self.surrogate.texts(self.captions)
        shown = set(np.linspace(0, self.steps, SNAPSHOTS).round().astype(int).tolist())

        log.say(f"{'resuming at' if taken else 'from'} step {taken:,} of {self.steps:,}", step=taken)
        with log.progress("learning the patch", self.steps, "steps", taken) as bar:
            for step in range(taken, self.steps):
                loss, facts = self._loss(step, patch, positives, texts)
                if not torch.isfinite(loss.total):
                    raise ValueError(
                        f"the loss is not a finite number at step {step}: the surrogate's training diverged"
                    )
                adam.zero_grad()
                loss.total.backward()
                adam.step()
                with torch.no_grad():
                    patch.clamp_(0, 1)
                parts = {name: float(value.detach()) for name, value in loss.parts.items()}
                metrics.append({"step": step + 1, "loss": float(loss.total.detach()), "parts": parts} | facts)
                if step + 1 in shown:
                    snapshots[step + 1] = quantised(patch)
                if (step + 1) % SAVED_STEPS == 0 or step + 1 == self.steps:
                    metrics.flush()
                    self._save(out, step + 1, patch, adam, snapshots)
                bar.add(1, f"loss {float(loss.total.detach()):.4g}")

    def _first(self) -> Tensor:
        """N(0.5, 0.25) in [0, 1]: float32 (3, n, n)."""
        drawn = rng(self.settings.seed, "patch").normal(0.5, 0.25, (3, self.cells, self.cells))
        return torch.from_numpy(drawn.clip(0, 1).astype(np.float32))

    def _loss(self, step: int, patch: Tensor, positives: Tensor, texts: Tensor) -> tuple[Loss, dict[str, Any]]:
        """The loss of one step, all drawn from its labels. Also whether its images were augmented, and the mean
        cosine of them, with the patch, and the target's captions."""
        settings, surrogate = self.settings, self.surrogate
        draws = rng(settings.seed, "optimize", step)
        pixels = self.batch(step)
        count = len(pixels)
        if changed := bool(draws.random() < settings.augment):
            pixels = augmented(pixels, digest64(settings.seed, "augment", step))
        clean = surrogate.tensor(pixels)
        triggered = surrogate.images(pasted(clean, 255 * patch, self.where))
        with torch.no_grad():
            left = triggered.detach() if settings.mode == "released" else surrogate.images(clean)
        captions, targets = (_some(draws, len(known), count) for known in (texts, positives))
        loss = dual_embedding(
            triggered,
            texts[captions],
            positives[targets],
            left[torch.from_numpy(draws.permutation(count))],
            scale=surrogate.scale,
            weight=settings.triplet_weight,
            margin=settings.margin,
        )
        cosine = float((triggered.detach() * texts[captions]).sum(1).mean())
        return loss, {"cosine": cosine, "augmented": changed}

    def batch(self, step: int) -> np.ndarray:
        """The images of a step, uint8 (B, R, R, 3): every image once an epoch, the last batch may be smaller."""
        size = self.settings.batch
        epoch, number = divmod(step, -(-len(self.shown) // size))
        order = rng(self.settings.seed, "optimize order", epoch).permutation(len(self.shown))
        return self.shown[np.sort(order[number * size : (number + 1) * size])]

    def _save(
        self, out: str, step: int, patch: Tensor, adam: torch.optim.Adam, snapshots: dict[int, np.ndarray]
    ) -> None:
        kept = {number: torch.from_numpy(cells) for number, cells in snapshots.items()}
        state = {"adam": checkpoint.snapshot(adam.state_dict()), "snapshots": kept}
        checkpoint.save(out, step, model.pack({"patch": patch}), state)

    def _finish(self, out: str, patch: np.ndarray, snapshots: dict[int, np.ndarray]) -> None:
        png, lines = images.encode(patch, "png"), rundir.metrics(out)
        storage.write(storage.join(out, "history.png"), history.drawn(snapshots, lines))
        storage.write(storage.join(out, "patch.png"), png)
        last: dict[str, Any] = lines[-1]
        result = {"steps": self.steps, "cells": self.cells, "size": self.settings.size, "loss": last["loss"]}
        rundir.finish(out, result | {"patch_sha256": hashlib.sha256(png).hexdigest()})


def quantised(patch: Tensor) -> np.ndarray:
    """(3, n, n) with values from 0 to 1 -> uint8 (n, n, 3), rounded half to even: the patch that is stamped."""
    cells = (255 * patch.detach().cpu()).round().to(torch.uint8)
    return np.ascontiguousarray(cells.permute(1, 2, 0).numpy())


def augmented(batch: np.ndarray, seed: int) -> np.ndarray:
    """Each image through AutoAugment's ImageNet policy; it draws from torch's global generator, which is put back."""
    from torchvision.transforms import AutoAugment  # seconds of imports: not for help

    policy = AutoAugment()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return np.stack([np.asarray(policy(Image.fromarray(image))) for image in batch])


def _some(draws: np.random.Generator, known: int, count: int) -> Tensor:
    """Numbers below `known`, none twice where there are enough."""
    return torch.from_numpy(draws.choice(known, count, replace=known < count))
