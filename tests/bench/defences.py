"""What each objective costs over plain CLIP training: processor time and memory of a whole step.

    python tests/bench/defences.py [--batch 64] [--rounds 5] [--steps 3] [--model picturebook-resnet]

A step is all of it: decode, views and tokens, both towers, loss, backward pass and AdamW, loader and model in one
process on one thread, on pairs of the picture book at the model's size. Within a round every objective takes its turn,
at the same batch and model; `time` is its processor seconds over those of `clip` in that round, the median over rounds,
and `mmcl`, whose steps are those of `clip`, says how much of it is noise. Objectives are as they come, but for
`tacleaner_all`, where every pair has sub-captions, as in eval/studies. `roclip` is a step of a matched epoch,
`augmented` one of its others; `safeclip` is one of an in-modal epoch with full pools, `safeclip_scored` one with its
share of the pass that scores all pairs in each later epoch. `memory` is the most that is held at a time over what
`clip` holds: weights, gradients, AdamW's two moments, what an objective keeps (an old model, pools), and the tensors of
the way back. Beside the table, the last line is JSON.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch import nn

from defense.objectives.roclip import RoClip
from defense.objectives.tacleaner import TaCleaner
from infra import plugins
from infra.seeding import rng
from pipeline import dataset
from pipeline.picturebook import draw
from tests.bench.loading import drawn
from tests.bench.step import kept_bytes
from tests.support import figures
from train import averaging, cache, model, optim
from train.encoder import Encoder
from train.objective import Clock, Objective, Setting
from train.presets import pick
from train.ranks import here
from train.step import Way, learn
from train.stream import Batch, Pairs, Stream

CLASSES = 14  # of which `supervised` learns a head; any label will do
PAIRS = 10_800  # of a demo's dataset, by which pools are sized
COLUMNS = ("objective", "time over CLIP", "memory over CLIP", "memory")


class Steps:
    """An objective's steps, one after another. scored: with a pass without gradient before each."""

    def __init__(self, what: Objective, local: cache.Local, name: str, batch: int, scored: bool) -> None:
        architecture = model.architecture(name)
        self.what, self.batch, self.scored, self.step = what, batch, scored, 0
        self.encoder = Encoder(model.create(architecture, 0), *model.mean_and_std(architecture))
        if what.from_start:
            self.encoder.keep_start()
        what.ready()
        size = model.image_size(architecture)
        self.pairs = Pairs(local, what, model.tokenizer(architecture), size=size, augment="none", seed=0)
        self.state = what.state(Setting(architecture["model_cfg"]["embed_dim"], PAIRS, CLASSES))
        self.matched = what.match_every - 1 if isinstance(what, RoClip) else 0
        recipe = pick("demo-finetune").recipe
        self.learner = averaging.distributed(self.encoder, what, here())
        self.update = optim.Update(
            optim.adamw(
                [self.encoder, self.state],
                lr=1e-6,
                weight_decay=recipe.weight_decay,
                beta1=recipe.beta1,
                beta2=recipe.beta2,
                eps=recipe.eps,
            )
        )
        self.batches = self._batches()

    def _batches(self) -> Iterator[Batch]:
        rows = np.asarray(self.pairs.columns["rows"])
        for epoch in count():
            clock = Clock(0, self.matched, len(rows) // self.batch, 0)
            roles = self.what.epoch(clock, rows, lambda ids: np.zeros(len(ids)), rng(0, "roles", epoch), self.state)
            yield from Stream(self.pairs, seed=0, batch=self.batch).epoch(epoch, 0, roles)

    def once(self) -> None:
        batch = next(self.batches)
        if self.what.classifies:
            batch["labels"] = batch["rows"] % CLASSES
        clock = Clock(self.step, self.matched, 10**6, self.step * self.batch)
        if self.scored:
            with torch.no_grad():
                one = {name: dict([next(iter(batch[name].items()))]) for name in ("images", "texts")}
                self.encoder(one["images"], one["texts"])
        learn(self.learner, self.what, self.state, batch, clock, Way(), scaled=self.update.scaled)
        self.update.take()
        self.step += 1

    def take(self, steps: int) -> float:
        """Seconds of processor time."""
        start = time.process_time()
        for _ in range(steps):
            self.once()
        return time.process_time() - start

    def held(self) -> int:
        """Bytes, at the most."""
        learned = [value for part in (self.encoder, self.state) for value in part.parameters()]
        kept = [value for part in (self.state, *self.encoder.start) for value in _tensors(part)]
        inside = {value.data_ptr() for value in learned}
        return (
            4 * sum(value.nbytes for value in learned)  # itself, its gradient and AdamW's two moments
            + sum(value.nbytes for value in kept if value.data_ptr() not in inside)
            + kept_bytes(self.once, set())
        )


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def objectives() -> dict[str, tuple[Objective, bool]]:
    """By name: what is measured, and whether every pair is scored beside."""
    found = {
        name: (plugins.load(Objective.FOLDERS, name, Objective)(), False) for name in plugins.names(Objective.FOLDERS)
    }
    return found | {
        "tacleaner_all": (TaCleaner(subcaption_share=1), False),
        "safeclip_scored": (found["safeclip"][0], True),
    }


def measure(made: dataset.Dataset, given: argparse.Namespace) -> dict[str, dict[str, float]]:
    ratios: dict[str, list[float]] = {}
    with cache.filled(made, 8, quiet=True) as local:
        ways = {
            name: Steps(what, local, given.model, given.batch, scored) for name, (what, scored) in objectives().items()
        }
        names = list(ways)
        for number in range(given.rounds + 1):  # the first one warms up, fills pools, and is not counted
            turn = names[number % len(names) :] + names[: number % len(names)]
            took = {name: ways[name].take(given.steps if number else 2 * given.steps) for name in turn}
            for name in names if number else ():
                ratios.setdefault(name, []).append(took[name] / took["clip"])
        held = {name: way.held() for name, way in ways.items()}
    return {
        name: {
            "time": statistics.median(ratios[name]),
            "least": min(ratios[name]),
            "most": max(ratios[name]),
            "memory": held[name] / held["clip"],
            "mib": held[name] / 2**20,
        }
        for name in names
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each objective in a round")
    parser.add_argument("--model", default="picturebook-resnet")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANTIDOTE_CACHE"] = f"{folder}/cache"
        size = model.image_size(model.architecture(given.model))
        made = drawn(f"{folder}/set", given.batch * 4, lambda row: draw.encoded(0, row, size))
        found = measure(made, given)
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for name, one in sorted(found.items(), key=lambda pair: pair[1]["time"]):
        time_ = f"{one['time']:.2f} [{one['least']:.2f}, {one['most']:.2f}]"
        print(f"| `{name}` | {time_} | {one['memory']:.2f} | {one['mib']:.0f} MiB |")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(figures.line(found))


if __name__ == "__main__":
    main()
