"""What a rank does with a pool, for tests/defense: ranks are other processes and import it by name."""

from typing import Any, Literal

import torch

from defense.objectives.roclip import RoClip
from defense.pool import Pool
from infra.seeding import rng
from tests.support.learning import gradients
from train import ranks


def batch(step: int, size: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A global batch of a step: embeddings of random length, and row ids."""
    drawn = rng(0, "batch", step).standard_normal((size, width))
    return torch.from_numpy(drawn), torch.arange(step * 1000, step * 1000 + size)


def pushed(pushes: int, capacity: int, width: int, sizes: list[int]) -> dict[str, Any]:
    """A pool after `pushes` steps of global batches of `sizes` in turn, of which each rank brought its part."""
    place = ranks.here()
    torch.manual_seed(place.rank)  # ranks agree for a better reason than equal seeds
    pool, matched = Pool(capacity, width), []
    for step in range(pushes):
        embeddings, rows = batch(step, sizes[step % len(sizes)], width)
        mine = slice(place.rank * len(rows) // place.ranks, (place.rank + 1) * len(rows) // place.ranks)
        embeddings, rows = ranks.gather(embeddings[mine].requires_grad_()), ranks.gather(rows[mine])
        if step:
            matched.append(pool.search(embeddings).rows)
        pool.push(embeddings, rows)
    return {**pool.state_dict(), "matched": torch.cat(matched)}


def matched_gradients(url: str) -> dict[str, Any]:
    """`learning.gradients` of three steps of a matched epoch, by what is matched; the first finds an empty pool."""
    fields: dict[str, Any] = {"match_every": 1, "pool_size": 40, "pool_fill": "partial"}
    kinds: tuple[Literal["captions", "both"], ...] = ("captions", "both")
    return {kind: gradients(url, RoClip(matching=kind, **fields), 16, steps=3) for kind in kinds}
