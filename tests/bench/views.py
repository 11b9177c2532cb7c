"""What the views of each objective cost a loader worker, and TA-Cleaner's sub-captions an epoch.

    python tests/bench/views.py [--seconds 0.5] [--rounds 6] [--steps 10] [--batch 64]

First each piece of work by itself, per second of one core, on the picture book. Then whole steps of finetuning at the
scale of the demo, loader and model in one process, TA-Cleaner with 1% of the pairs chosen and CleanCLIP in turn on the
same pairs: `subcaptions_share_of_epoch` is what the sub-captions take of a step, the median over rounds.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torchvision.transforms import AutoAugment

from defense.changing.augment import strong
from defense.language import parsing
from defense.language.captions import eda
from defense.language.subcaptions import subcaptions
from defense.objectives.cleanclip import CleanClip
from defense.objectives.tacleaner import TaCleaner
from infra import plugins
from infra.seeding import rng
from pipeline import dataset
from pipeline.images import open_image
from pipeline.picturebook import captions, draw
from tests.bench.loading import SIZE, drawn
from tests.support import figures
from train import averaging, cache, model, optim
from train.encoder import Encoder
from train.objective import Clock, Objective, Pair, Setting
from train.presets import pick
from train.ranks import here
from train.step import forward
from train.stream import Batch, Pairs, Stream

SHARE = 0.01  # of the pairs have sub-captions
PAIRS = 256  # different ones, of which the pieces of work are made in turn


def pieces() -> dict[str, Callable[[int], object]]:
    """By name: one piece of work, of the pair of that number."""
    said = [captions.caption(0, row) for row in range(PAIRS)]
    shown = [open_image(draw.encoded(0, row, SIZE)) for row in range(PAIRS)]
    pairs = [Pair(row, image, caption) for row, (image, caption) in enumerate(zip(shown, said, strict=True))]
    policy, nlp = AutoAugment(), parsing.pipeline()
    draws = [rng(0, "bench", row) for row in range(PAIRS)]
    found: dict[str, Callable[[int], object]] = {
        "eda_captions": lambda row: eda(said[row], draws[row]),
        "subcaption_captions": lambda row: subcaptions(said[row], draws[row], nlp),
        "autoaugment_pictures": lambda row: policy(shown[row]),
        "strong_pictures": lambda row: strong(shown[row]),
    }
    for name in plugins.names(Objective.FOLDERS):
        what = plugins.load(Objective.FOLDERS, name, Objective)()
        what.ready()
        found[f"{name}_views"] = lambda row, what=what: what.views(pairs[row], draws[row])  # type: ignore[misc]
    return found


def per_second(work: Callable[[int], object], seconds: float) -> float:
    """Of one core: processor time, in which other processes have no part."""
    start, count = time.process_time(), 0
    while (taken := time.process_time() - start) < seconds:
        for _ in range(8):
            work(count % PAIRS)
            count += 1
    return count / taken


class Steps:
    """An objective's steps, one after another: load, encode, learn."""

    def __init__(self, what: Objective, local: cache.Local, encoder: Encoder, batch: int) -> None:
        self.what, self.encoder, self.batch, self.step = what, encoder, batch, 0
        architecture = model.architecture("picturebook-resnet")
        pairs = Pairs(local, what, model.tokenizer(architecture), size=SIZE, augment="none", seed=0)
        rows = np.asarray(pairs.columns["rows"])
        self.steps_per_epoch = len(rows) // batch
        self.state = what.state(Setting(architecture["model_cfg"]["embed_dim"], len(rows)))
        clock = Clock(0, 0, self.steps_per_epoch, 0)
        roles = what.epoch(clock, rows, lambda ids: np.zeros(len(ids)), rng(0, "roles", 0), self.state)
        self.batches: Iterator[Batch] = Stream(pairs, seed=0, batch=batch).epoch(0, 0, roles)
        recipe = pick("demo-finetune").recipe
        self.learner = averaging.distributed(encoder, what, here())
        self.optimizer = optim.adamw(
            [encoder], lr=1e-6, weight_decay=recipe.weight_decay, beta1=recipe.beta1, beta2=recipe.beta2, eps=recipe.eps
        )

    def take(self, count: int) -> float:
        """Seconds of processor time."""
        start = time.process_time()
        for _ in range(count):
            clock = Clock(self.step, 0, self.steps_per_epoch, self.step * self.batch)
            loss, _ = forward(self.learner, self.what, self.state, next(self.batches), clock)
            loss.total.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
        return time.process_time() - start


def share_of_epoch(made: dataset.Dataset, given: argparse.Namespace) -> float:
    architecture = model.architecture("picturebook-resnet")
    encoder = Encoder(model.create(architecture, 0), *model.mean_and_std(architecture))
    shares = []
    with cache.filled(made, 8, quiet=True) as local:
        with_, without = (
            Steps(what, local, encoder, given.batch) for what in (TaCleaner(subcaption_share=SHARE), CleanClip())
        )
        for number in range(given.rounds + 1):  # the first one warms up, and is not counted
            order = (with_, without) if number % 2 else (without, with_)
            took = {steps: steps.take(given.steps) for steps in order}
            print(f"round {number}: tacleaner {took[with_]:.2f} s, cleanclip {took[without]:.2f} s")
            shares.append(1 - took[without] / took[with_])
    return statistics.median(shares[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each piece of work")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=10, help="of each objective in a round")
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name, work in pieces().items():
        work(0)
        found[f"{name}_per_second"] = per_second(work, given.seconds)
        print(f"{name}: {found[f'{name}_per_second']:,.0f} a second")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANTIDOTE_CACHE"] = f"{folder}/cache"
        made = drawn(f"{folder}/set", given.batch * given.steps * (given.rounds + 1))
        found["subcaptions_share_of_epoch"] = share_of_epoch(made, given)
    print(figures.line(found))


if __name__ == "__main__":
    main()
