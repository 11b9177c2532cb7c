"""What a nearest-neighbour pool costs in a step: search for a batch, then push it; the ways of searching, compared.

    python infra/bench/pool.py [--batch 256] [--rounds 4] [--width 1024] [--threads 1] [--device cpu]

`cloned` is how the released RoCLIP and SafeCLIP do it, written anew: in every step the whole memory bank is copied and
normalised twice, and searched twice, the second time for nothing while the batch is put in, without what would go
past the bank's end. The pools hold random unit vectors, as large as RoCLIP's default and thrice that. The ways take
turns within a round, so that a busy machine slows all of them.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from defense.pool import Pool
from defense.search import Way

CAPACITIES = (21_845, 65_536)

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
        took = {name: milliseconds(steps[name], images, texts) for name in order}
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


def milliseconds(step: Step, images: Tensor, texts: Tensor) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(images, texts)
    if images.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of FAISS, on the CPU")
    parser.add_argument("--device", default="cpu")
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
    print(json.dumps(found))


if __name__ == "__main__":
    main()
