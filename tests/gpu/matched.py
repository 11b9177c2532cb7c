"""What RoCLIP's pool costs on a GPU: a search and a push, and a matched step of training over one of CLIP.

    python -m tests.gpu.matched [--device cuda] [--model RN50] [--batch 512] [--capacities 21845 65536] [--rounds 8]

By FAISS on the GPU, by torch there, and as the released code does it, with a bank that is copied and normalised twice a
step (tests/bench/pool.py). A way that cannot be had is named, with the reason.
"""

import argparse
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from defense.objectives.roclip import RoClip
from defense.pool import Matches, Pool
from defense.search import Search, Way, choose
from tests.bench.pool import CAPACITIES, ClonedBank, Training, compared
from tests.support import figures, timing
from train.objectives.clip import Clip


class ClonedPool(nn.Module):
    """The released bank, where a RoClip expects its Pool."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.bank, self.capacity, self.count = ClonedBank(pool.embeddings), pool.capacity, pool.count

    def search(self, queries: Tensor) -> Matches:
        queries = nn.functional.normalize(queries.detach(), dim=1)
        found, rows = self.bank.match(queries, push=False), torch.zeros(len(queries), dtype=torch.int64)
        rows = rows.to(queries.device)
        return Matches(found, rows, (queries * found).sum(dim=1), rows)

    def push(self, embeddings: Tensor, rows: Tensor) -> None:
        self.bank.match(nn.functional.normalize(embeddings.detach(), dim=1), push=True)


def cloned(state: nn.Module) -> nn.Module:
    assert isinstance(state, nn.ModuleDict)
    return nn.ModuleDict({kind: nn.ModuleList(map(ClonedPool, pools)) for kind, pools in state.items()})  # type: ignore[arg-type]


def ways_there(device: torch.device) -> tuple[dict[Way, str], dict[str, str]]:
    """The ways of searching a pool there, by what they are called here; and the reasons against the others."""
    library: Search = "faiss-gpu" if device.type == "cuda" else "faiss-cpu"
    wanted: tuple[Search, ...] = ("torch", library)
    found: dict[Way, str] = {}
    lacking: dict[str, str] = {}
    for search in wanted:
        try:
            found[choose(search, device)[0]] = search.replace("-", "_")
        except ValueError as error:
            lacking[search] = str(error)
    return found, lacking


def steps(capacity: int, scene: Training, ways: dict[Way, str], rounds: int, device: torch.device) -> dict[str, Any]:
    """A matched step by each way over a step of CLIP, in turn."""
    plain, matched = Clip(), {way: RoClip(pool_size=capacity, search=way) for way in ways}
    work: dict[str, timing.Work] = {"clip": partial(scene.step, plain, scene.state(plain))}
    for way, objective in matched.items():
        work[ways[way]] = partial(scene.step, objective, scene.state(objective))
    bank = matched["torch"]
    work["cloned"] = partial(scene.step, bank, cloned(scene.state(bank)))
    taken = timing.in_turn(work, rounds, device)
    found = {f"roclip_{name}_over_clip_{capacity}": timing.middle(taken, name, "clip") for name in list(work)[1:]}
    return found | {f"clip_step_ms_{capacity}": timing.middle(taken, "clip")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="RN50")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024, help="of the embeddings, where a pool is alone")
    parser.add_argument("--capacities", type=int, nargs="+", default=list(CAPACITIES))
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.manual_seed(0)
    ways, lacking = ways_there(device)
    scene = Training(given.model, given.batch, 1, device)
    found: dict[str, Any] = {"ways": ["cloned", *ways.values()], "batch": given.batch}
    for capacity in given.capacities:
        found |= compared(capacity, given, ways)
        found |= steps(capacity, scene, ways, given.rounds, device)
    if lacking:
        found["not_measured"] = "; ".join(f"{name}: {why}" for name, why in lacking.items())
    print(figures.line(found))


if __name__ == "__main__":
    main()
