"""Clean pairs and a surrogate -> a patch: the one function behind poison/optimize.py.

    config.json, environment.json, metrics.jsonl, checkpoints/      as in a run (infra.rundir)
    patch.png           n x n cells, exactly the bytes that were learned
    history.png         the patch over time, and both losses
    DONE                written last: the patch is finished

The released code of BadCLIP (a7b1876) pastes in place, so that the negatives of its triplet loss, meant to be the clean
images, are images with the patch: that is `--mode released`. It also stores the patch as a lossy JPEG of 16 x 16
pixels with red and blue exchanged, and an augmentation of captions that it means to do has no effect: no mode does
either.

What is modelled: the patch lies on the stored image's central square as the attack stamps it, and the image is then
brought to the surrogate's size. What is not: the file type of the poisoned image, and what a training augmentation
leaves of the patch.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from infra import config, log, rundir, storage
from infra.seeding import rng
from pipeline.dataset import Dataset
from poison.attacks.badclip import BadClip
from poison.geometry import Box
from poison.learning import material
from poison.learning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Optimization(Recipe):
    """What to learn the patch from, and how. The defaults are the paper's."""

    # Fields that may differ when the same command comes back; digests stand for the places.
    FREE: ClassVar[frozenset[str]] = frozenset({"dataset", "surrogate", "pretrained", "out", "dry_run"})

    surrogate: str
    """Folder of a run; with --pretrained the name of a model, such as RN50-quickgelu."""
    dataset: str
    """Folder of a dataset: pairs that name the target, and others that do not. It is not changed."""
    out: str
    """Folder of the patch."""
    pretrained: str | None = None
    """A local file of weights (.safetensors or .pt) for a surrogate that is named."""
    target: str = "banana"
    """The class name that images with the patch shall be taken for."""
    cells: int | None = None
    """Cells along a side of the patch; by default as many as the pixels it has in the stored images, at most size."""
    pairs: int = 10_000
    """At most so many pairs that do not name the target are shown, and at most so many that do."""
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        BadClip(target=self.target, size=self.size)  # its complaints are ours
        if self.pairs < 1:
            raise ValueError(f"--pairs must be above 0, not {self.pairs}")
        if self.cells is not None and not 1 <= self.cells <= self.size:
            raise ValueError(f"--cells are at least 1 and at most the patch's size of {self.size}, not {self.cells}")
        for name in ("dataset", "surrogate"):
            other, out = storage.real(getattr(self, name)), storage.real(self.out)
            if storage.within(other, out) or storage.within(out, other):
                raise ValueError(f"--{name} and --out must be separate folders, neither inside the other: {out}")

    def run(self) -> str:
        """Learn the patch, or go on learning. Returns the entry's last line."""
        from poison.learning import surrogates

        out = storage.absolute(self.out)
        dataset, surrogate = Dataset.open(self.dataset), surrogates.load(self.surrogate, self.pretrained)
        if dataset.contains_poison:
            log.warn(f"{dataset.url} contains poison: the patch is learned from poisoned pairs too")
        recipe = config.to_json(self)
        learned = {"digest": dataset.digest, "samples": dataset.samples, "contains_poison": dataset.contains_poison}
        # With --pretrained, --surrogate is no place but a model's name, and by another one weights act otherwise.
        named = {} if self.pretrained is None else {"model": self.surrogate}
        inputs = {"dataset": learned, "surrogate": {"sha256": surrogate.sha256} | named}
        rundir.check(out, recipe, self.FREE, inputs)
        if rundir.done(out) is not None and not self.dry_run:
            return f"nothing to do: the patch {storage.join(out, 'patch.png')} is finished"

        clean, targets = material.chosen(dataset, self.target, self.pairs, self.seed)
        side = material.side((clean, targets), surrogate.size)
        where = self._where(side)
        cells = self.cells or min(self.size, where.height)
        if cells > where.height:
            raise ValueError(
                f"{cells} cells do not show in {where.height} pixels, which is what a patch of size {self.size} has in "
                f"images of {side} x {side}: lower --cells or raise --size"
            )
        steps = self.epochs * -(-len(clean) // self.batch)
        summary = f"{cells} x {cells} cells, {steps:,} steps over {len(clean):,} pairs, {len(targets):,} of the target"
        note = f"; {surrogate.note}" if surrogate.note else ""
        if self.dry_run:
            plan = {"cells": cells, "pairs": len(clean), "pairs_of_target": len(targets), "image": side}
            plan |= {"steps": steps, "top": where.top, "left": where.left, "pixels": where.height}
            print(storage.dump_json({"configuration": recipe, "plan": plan}).decode(), end="")
            return f"would learn a patch of {summary}; nothing was written{note}"

        from poison.learning import descent

        rundir.claim(out, recipe, self.FREE, inputs)
        with tempfile.TemporaryDirectory() as scratch:
            shown, positives = (
                material.squares(dataset, table, side, Path(scratch) / name)
                for table, name in ((clean, "clean"), (targets, "targets"))
            )
            captions = targets["caption"].to_pylist()
            learning = descent.Descent(self, surrogate, shown, positives, captions, where, cells, steps)
            learning.run(out)
        return f"learned a patch of {summary}: {storage.join(out, 'patch.png')}{note}"

    def _where(self, side: int) -> Box:
        """Where the attack will stamp it."""
        where = BadClip(size=self.size).locate(side, side, rng(0))
        assert where is not None
        return where
