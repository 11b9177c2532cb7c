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
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defense.objectives.roclip import RoClip
from defense.pool import Pool
from defense.search import Way
from tests.support import figures, timing
from train import model, optim
from train.objective import EVERYTHING, Clock, Objective, Setting
from train.objectives.clip import Clip
from train.step import forward

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


def compared(capacity: int, given: argparse.Namespace, names: Mapping[Way, str]) -> dict[str, float]:
    """Milliseconds a step and ratios, medians over the rounds."""
    entries = F.normalize(torch.randn(capacity, given.width, device=given.device), dim=1)
    pools = {name: pooled(entries, way) for way, name in names.items()}
    bank = ClonedBank(entries)
    steps: dict[str, Step] = {**{name: step for name, (_, step) in pools.items()}, "cloned": bank.step}
    rounds: list[dict[str, float]] = []
    for number in range(given.rounds + 1):  # the first one warms up, and is not counted
        images, texts = F.normalize(torch.randn(2, given.batch, given.width, device=given.device), dim=2)
        order = list(steps) if number % 2 else list(reversed(steps))
        took = {name: timing.milliseconds(partial(steps[name], images, texts), given.device) for name in order}
        told = ", ".join(f"{name} {took[name]:,.1f}" for name in steps)
        print(f"{capacity:,} x {given.width:,}, round {number}: {told} ms")
        rounds.append(took)
    places = [pool.search(images).places for pool, _ in pools.values()]
    assert all(torch.equal(places[0], each) for each in places), "the ways found different matches"
    found = {f"{name}_ms_{capacity}": statistics.median(each[name] for each in rounds[1:]) for name in steps}
    for name in list(steps)[1:]:
        ratio = statistics.median(each[name] / each["torch"] for each in rounds[1:])
        found[f"{name}_over_torch_{capacity}"] = ratio
    return found


@dataclass(frozen=True, kw_only=True)
class Poolless(Clip):
    """A matched step without its pool: the text tower rests, and the loss is CLIP's."""

    def trainable(self, clock: Clock) -> frozenset[str]:
        return EVERYTHING - {"text"}


class Training:
    """Steps of one model with one batch, by several objectives in turn."""

    def __init__(self, name: str, pairs: int, samples: int, device: torch.device) -> None:
        """samples: of the dataset that is stood for, of which RoCLIP's pool is a share."""
        self.encoder, self.batch = timing.encoder(name, device), timing.batch(name, pairs, device)
        self.optimizer = optim.adamw([self.encoder], lr=1e-6, weight_decay=0.1, beta1=0.9, beta2=0.98, eps=1e-8)
        self.setting = Setting(model.architecture(name)["model_cfg"]["embed_dim"], samples, device=device)

    def state(self, objective: Objective) -> nn.Module:
        """With pools that are full."""
        state = objective.state(self.setting)
        for pool in state.modules():
            if isinstance(pool, Pool):
                pool.push(torch.randn_like(pool.embeddings), torch.arange(pool.capacity, device=pool.rows.device))
        return state

    def step(self, objective: Objective, state: nn.Module) -> None:
        loss, _ = forward(self.encoder, objective, state, self.batch, MATCHED)
        loss.total.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        assert bool(loss.matches) == isinstance(objective, RoClip)


def training(given: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of each kind, of one model, and ratios: medians over paired steps."""
    device = torch.device(given.device)
    scene = Training(given.model, given.step_batch, given.samples, device)
    kinds: dict[str, Objective] = {"roclip_step": RoClip(), "clip_step": Clip(), "poolless_step": Poolless()}
    ways = {name: partial(scene.step, objective, scene.state(objective)) for name, objective in kinds.items()}
    rounds = timing.in_turn(ways, STEPS * given.rounds, device)
    found = {f"{name}_ms": timing.middle(rounds, name) for name in kinds}
    for other in ("clip_step", "poolless_step"):
        found[f"roclip_step_over_{other}"] = timing.middle(rounds, "roclip_step", other)
    return found


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
    print(figures.line(found))


if __name__ == "__main__":
    main()
