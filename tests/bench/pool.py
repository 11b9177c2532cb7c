"""What a nearest-neighbour pool costs: a search for a batch and then its push, by each way; and in a step of training.

    python tests/bench/pool.py [--batch 256] [--rounds 4] [--width 1024] [--threads 1] [--device cpu]
    ... [--model RN50-quickgelu --step-batch 512 --samples 1000000]

`cloned` is how the released RoCLIP and SafeCLIP do it, written anew: in every step the whole memory bank is copied and
normalised twice, and searched twice, the second time for nothing while the batch is put in, without what would go
past the bank's end. The pools hold random unit vectors, as large as RoCLIP's default and thrice that. The ways take
turns within a round, so that a busy machine slows all of them.

A step of training is forward, loss, backward and optimiser on a batch that is there already, by default at the image
book's scale, with RoCLIP's pool of 2% of the pairs: `roclip_step_over_clip_step` is a matched step over one of CLIP.
A matched one has no backward pass through the text tower, which may hide what the pool costs. That is said by
`roclip_step_over_poolless_step`, over a step that leaves the text tower alone and knows no pool.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from defense.objectives.roclip import RoClip
from defense.pool import Pool
from defense.search import Way
from train import model, optim
from train.encoder import Encoder
from train.objective import EVERYTHING, Clock, Objective, Setting
from train.objectives.clip import Clip
from train.step import ABOUT, forward, on

CAPACITIES = (21_845, 65_536)
STEPS = 5  # of training, of each kind, a round
MATCHED = Clock(step=15, epoch=1, steps_per_epoch=10, samples=0)

Step = Callable[[Tensor, Tensor], None]


class ClonedBank:
    """(D, capacity), as the released code lays it out."""

    def __init__(self, entries: Tensor) -> None:
        self.bank, self.position = entries.T.contiguous(), 0

    def match(self, queries: Tensor, push: bool) -> Tensor:
        before = self.bank.clone()
        if push:
            room = self.bank.shape[1] - self.position
            self.bank[:, self.position : self.position + len(queries)] = queries[:room].T
            self.position = self.position + len(queries) if len(queries) < room else 0
        found = F.normalize(before.T, dim=1)
        return found[(queries @ found.T).argmax(dim=1)]

    def step(self, images: Tensor, texts: Tensor) -> None:
        self.match(images, push=False)
        self.match(texts, push=True)


def pooled(entries: Tensor, way: Way) -> tuple[Pool, Step]:
    pool = Pool(len(entries), entries.shape[1], way, entries.device)
    rows = torch.arange(len(entries), device=entries.device)
    pool.push(entries, rows)

    def step(images: Tensor, texts: Tensor) -> None:
        pool.search(images)
        pool.push(texts, rows[: len(texts)])

    return pool, step


def compared(capacity: int, given: argparse.Namespace, names: dict[Way, str]) -> dict[str, float]:
    """Milliseconds a step and ratios, medians over the rounds."""
    entries = F.normalize(torch.randn(capacity, given.width, device=given.device), dim=1)
    pools = {name: pooled(entries, way) for way, name in names.items()}
    bank = ClonedBank(entries)
    steps: dict[str, Step] = {**{name: step for name, (_, step) in pools.items()}, "cloned": bank.step}
    rounds: list[dict[str, float]] = []
    for number in range(given.rounds + 1):  # the first one warms up, and is not counted
        images, texts = F.normalize(torch.randn(2, given.batch, given.width, device=given.device), dim=2)
        order = list(steps) if number % 2 else list(reversed(steps))
        took = {name: milliseconds(partial(steps[name], images, texts), given.device) for name in order}
        told = ", ".join(f"{name} {took[name]:,.1f}" for name in steps)
        print(f"{capacity:,} x {given.width:,}, round {number}: {told} ms")
        rounds.append(took)
    places = [pool.search(images).places for pool, _ in pools.values()]
    assert all(torch.equal(places[0], each) for each in places), "the ways found different matches"
    found = {f"{name}_ms_{capacity}": round(statistics.median(each[name] for each in rounds[1:]), 2) for name in steps}
    for name in list(steps)[1:]:
        ratio = statistics.median(each[name] / each["torch"] for each in rounds[1:])
        found[f"{name}_over_torch_{capacity}"] = round(ratio, 2)
    return found


@dataclass(frozen=True, kw_only=True)
class Poolless(Clip):
    """A matched step without its pool: the text tower rests, and the loss is CLIP's."""

    def trainable(self, clock: Clock) -> frozenset[str]:
        return EVERYTHING - {"text"}


def training(given: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of each kind, of one model, and ratios: medians over paired steps."""
    architecture = model.architecture(given.model)
    encoder = Encoder(model.create(architecture, seed=0), *model.mean_and_std(architecture)).to(given.device)
    optimizer = optim.adamw([encoder], lr=1e-6, weight_decay=0.1, beta1=0.9, beta2=0.98, eps=1e-8)
    size, count = model.image_size(architecture), given.step_batch
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    tokens = model.tokenizer(architecture)([f"a red car number {number}" for number in range(count)])
    whole = {"images": {"image": pixels}, "texts": {"text": tokens}, "present": torch.arange(count)}
    batch = on(torch.device(given.device), whole | {name: torch.arange(count) for name in ABOUT})
    setting = Setting(architecture["model_cfg"]["embed_dim"], given.samples, device=torch.device(given.device))
    kinds: dict[str, Objective] = {"roclip_step": RoClip(), "clip_step": Clip(), "poolless_step": Poolless()}
    states = {name: objective.state(setting) for name, objective in kinds.items()}
    for pool in states["roclip_step"].modules():
        if isinstance(pool, Pool):
            entries = torch.randn(pool.capacity, setting.width, device=given.device)
            pool.push(entries, torch.arange(pool.capacity, device=given.device))

    def step(name: str) -> None:
        loss, _ = forward(encoder, kinds[name], states[name], batch, MATCHED)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert bool(loss.matches) == (name == "roclip_step")

    rounds: list[dict[str, float]] = []
    for number in range(STEPS * given.rounds + 2):  # the first two warm up, and are not counted
        order = list(kinds)[number % 3 :] + list(kinds)[: number % 3]
        took = {name: milliseconds(partial(step, name), given.device) for name in order}
        print(f"step {number}: " + ", ".join(f"{name} {took[name]:,.1f}" for name in kinds) + " ms")
        rounds.append(took)
    found = {f"{name}_ms": round(statistics.median(each[name] for each in rounds[2:]), 2) for name in kinds}
    for other in ("clip_step", "poolless_step"):
        ratio = statistics.median(each["roclip_step"] / each[other] for each in rounds[2:])
        found[f"roclip_step_over_{other}"] = round(ratio, 3)
    return found


def milliseconds(work: Callable[[], None], device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of FAISS, on the CPU")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="picturebook-resnet", help="of the steps of training")
    parser.add_argument("--step-batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=10_800, help="pairs of the dataset, of which the pool is 2%%")
    given = parser.parse_args()
    import faiss

    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    torch.manual_seed(0)
    library: Way = "faiss-cpu" if given.device == "cpu" else "faiss-gpu"
    names: dict[Way, str] = {"torch": "torch", library: library.replace("-", "_")}
    found: dict[str, float] = {"batch": given.batch, "threads": given.threads}
    for capacity in CAPACITIES:
        found |= compared(capacity, given, names)
    found |= training(given)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
