"""How fast a model learns, what it waits for and how much memory it takes, beside open_clip's own step.

    python -m tests.gpu.towers --model RN50 --batches 512 1024 [--device cuda] [--rounds 5] [--steps 3]

Of each batch, with the same pixels and tokens in the host's memory for both:

- step: ours as the loop takes it (to the GPU, forward in bfloat16, loss, backward, AdamW) and open_clip's own forward,
  loss and backward under autocast with the same optimiser, in turn, channels last for both; images a second and the
  ratio of paired times, and the most memory of each.
- run: a whole training run on JPEGs of 341 x 256, decoded by loader processes: images a second, the share of the time
  that was spent waiting for data, and what a loader spends on a pair. Its first third, while the loaders start, is left
  out. Every step is logged here, so the GPU is waited for in each.

A batch that is too large for the memory is told as that.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn

from infra import rundir
from pipeline.dataset import Dataset
from tests.bench import loading
from tests.support import figures, timing
from tests.support.drawn import drawn
from train import model, optim, transforms
from train.objective import Clock
from train.objectives.clip import Clip
from train.presets import Recipe
from train.step import Way, learn
from train.stream import SPENT, Batch
from train.training import Pretraining

SETTINGS = {"lr": 1e-5, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "eps": 1e-6}
RUN_STEPS = 48  # below 100, so that every step is a line of metrics.jsonl

Step = Callable[[], Tensor]


def ours(name: str, given: Batch, device: torch.device) -> Step:
    """One step as train.loop takes it; its loss."""
    encoder = timing.encoder(name, device)
    update = optim.Update(optim.adamw([encoder], **SETTINGS))

    def step() -> Tensor:
        loss, _ = learn(encoder, Clip(), nn.Module(), given, Clock(0, 0, 1, 0), Way(), scaled=update.scaled)
        update.take()
        optim.clamp_logit_scale(encoder.clip)
        return loss.total.detach()

    return step


def open_clips(name: str, given: Batch, device: torch.device) -> Step:
    """The same by open_clip's own parts, as its trainer puts them together for amp_bf16; its loss."""
    architecture = model.architecture(name)
    clip: Any = model.create(architecture, 0).to(device)
    mean, std = (torch.tensor(values, device=device) for values in model.mean_and_std(architecture))
    convolutions = sum(isinstance(module, nn.Conv2d) for module in clip.visual.modules())
    layout = torch.channels_last if convolutions > 1 else torch.contiguous_format
    clip.visual.to(memory_format=layout)
    optimizer, criterion = optim.adamw([clip], **SETTINGS), ClipLoss()

    def step() -> Tensor:
        pixels = given["images"]["image"].to(device, non_blocking=True).contiguous(memory_format=layout)
        tokens = given["texts"]["text"].to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            pixels = transforms.normalised(pixels, mean, std)
            images, texts = clip.encode_image(pixels, normalize=True), clip.encode_text(tokens, normalize=True)
            loss: Tensor = criterion(images, texts, clip.logit_scale.exp())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            clip.logit_scale.clamp_(0, optim.MAX_LOGIT_SCALE)
        return loss.detach()

    return step


def compared(name: str, pairs: int, device: torch.device, rounds: int, steps: int) -> dict[str, Any]:
    """Images a second of both, peaks of memory in GiB, and the time of ours over theirs."""
    given = pinned(timing.batch(name, pairs, torch.device("cpu")), device)
    ways: dict[str, timing.Work] = {}
    found: dict[str, Any] = {}
    for way, make in (("ours", ours), ("open_clip", open_clips)):
        before = timing.held(device)
        step = make(name, given, device)
        found[f"{way}_peak_gib"] = timing.peak_gib(lambda step=step: [step(), step()], device, before)
        ways[way] = lambda step=step: [step() for _ in range(steps)]
    measured = timing.in_turn(ways, rounds, device, warm_up=1)
    for way in ways:
        found[f"{way}_images_per_second"] = pairs * steps * 1000 / timing.middle(measured, way)
    return found | {"step_over_open_clip": timing.middle(measured, "ours", "open_clip")}


def pinned(given: Batch, device: torch.device) -> Batch:
    """As the loader leaves it for a GPU."""
    if device.type == "cpu":
        return given
    parts = {kind: {view: value.pin_memory() for view, value in given[kind].items()} for kind in ("images", "texts")}
    return {**{name: value.pin_memory() for name, value in given.items() if name not in parts}, **parts}


def run(name: str, pairs: int, data: Dataset, device: torch.device, workers: int, steps: int) -> dict[str, Any]:
    """What a run's own log says, without its first third, and the most memory that it took."""
    epochs = -(-steps // (data.samples // pairs))
    with tempfile.TemporaryDirectory(dir=Path(data.url).parent) as out:
        recipe = Recipe(batch=pairs, epochs=epochs, lr=1e-5, warmup_steps=2)
        training = Pretraining(
            objective=Clip(), dataset=data.url, out=f"{out}/run", model=name, recipe=recipe, workers=workers
        )
        peak = timing.peak_gib(training.run, device, timing.held(device))
        lines = rundir.metrics(f"{out}/run")
    lines = lines[len(lines) // 3 :]
    seconds = [pairs / line["samples_per_second"] for line in lines]
    waited = sum(line["data_wait_share"] * each for line, each in zip(lines, seconds, strict=True))
    found = {
        "run_images_per_second": pairs * len(lines) / sum(seconds),
        "run_data_wait_share": waited / sum(seconds),
        "run_peak_gib": peak,
        "run_workers": workers,
    }
    return found | {f"run_{what}_ms": statistics.median(line[f"{what}_ms"] for line in lines) for what in SPENT}


def data_of(folder: Path, count: int, size: int) -> Dataset:
    """Drawn once and kept: JPEGs as large as photos for a model of 224 pixels, small ones for a small model."""
    made, url = folder / f"pairs-{count}-{size}", str(folder / f"pairs-{count}-{size}" / "data")
    if not (made / "data" / "dataset.json").exists():
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        return loading.drawn(url, count, loading.grained) if size > 64 else drawn(url, count, 1, size=size)
    return Dataset.open(url)


def measured(name: str, pairs: int, given: argparse.Namespace) -> dict[str, Any]:
    device = torch.device(given.device)
    found: dict[str, Any] = {}
    try:
        found |= compared(name, pairs, device, given.rounds, given.steps)
        data = data_of(Path(given.folder), max(2 * max(given.batches), 64), model.image_size(model.architecture(name)))
        found |= run(name, pairs, data, device, given.workers, given.run_steps)
    except torch.cuda.OutOfMemoryError:
        found["not_measured"] = f"the rest: a batch of {pairs:,} does not fit into this GPU's memory"
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="of each way, a round")
    parser.add_argument("--run-steps", type=int, default=RUN_STEPS)
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--folder", help="for the drawn pairs, which stay there; none: they go at the end")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        given.folder = given.folder or stack.enter_context(tempfile.TemporaryDirectory())
        os.environ["ANTIDOTE_CACHE"] = f"{given.folder}/cache"
        found = {str(pairs): measured(given.model, pairs, given) for pairs in given.batches}
    print(figures.line(found))


if __name__ == "__main__":
    main()
