"""The pool that RoCLIP and SafeCLIP match with: a ring buffer of embeddings, searched where it lies.

RoCLIP (Yang et al. 2023, arXiv 2303.06854) matches an image with the caption of this pool that is nearest to it,
SafeCLIP (2310.05862) an embedding with its nearest one of the same kind.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defense.search import Search, Way, choose, nearest
from infra import log
from infra.errors import Lost
from train import ranks


@dataclass(frozen=True)
class Matches:
    """What was found for B queries, without gradient; copies, which a later push does not change.

    embeddings: (B, D) in the queries' dtype, of length 1. rows: int64 (B,), the row ids they were pushed with.
    similarities: float32 (B,), cosines. places: int64 (B,), in the buffer.
    """

    embeddings: Tensor
    rows: Tensor
    similarities: Tensor
    places: Tensor

    @classmethod
    def joined(cls, parts: "list[Matches]") -> "Matches":
        """One after another."""
        each = zip(*((part.embeddings, part.rows, part.similarities, part.places) for part in parts), strict=True)
        return cls(*(torch.cat(tensors) for tensors in each))


def entries(size: int, share: float, samples: int) -> int:
    """How many a pool holds: `size`, or where that is 0 a share of the dataset's samples, at least one."""
    return size or max(1, round(share * samples))


class Pool(nn.Module):
    """The newest `capacity` embeddings that were pushed, first in first out; nothing in it was ever made up.

    Search before you push, or a query finds its own. Every rank pushes the gathered batch (train.ranks.gather), so
    that the pool is the same on all without a word exchanged. All of it lies in buffers, so in the checkpoint too, and
    is restored to the bit.

    Buffers: embeddings, float32 (capacity, D), of length 1; rows, int64 (capacity,), their row ids; filled, int64 (),
    how many of them are in use, from the first on; position, int64 (), where the next one goes.
    """

    embeddings: Tensor
    rows: Tensor
    position: Tensor
    filled: Tensor

    def __init__(
        self, capacity: int, width: int, search: Search = "auto", device: torch.device | str | None = None
    ) -> None:
        """device: where the model lies; rank 0 says which way of searching that makes.

        Raises ValueError for a capacity or width below 1, or a way of searching that cannot be had there.
        """
        super().__init__()
        if capacity < 1 or width < 1:
            raise ValueError(f"a pool holds at least 1 embedding of at least 1 number, not {capacity} of {width}")
        self.preferred: Search = search
        self.register_buffer("embeddings", torch.zeros(capacity, width, device=device, dtype=torch.float32))
        self.register_buffer("rows", torch.full((capacity,), -1, device=device, dtype=torch.int64))
        self.register_buffer("position", torch.zeros((), device=device, dtype=torch.int64))
        self.register_buffer("filled", torch.zeros((), device=device, dtype=torch.int64))
        way, why = choose(search, self.embeddings.device)
        if ranks.here().first:
            place = self.embeddings.device
            log.say(
                f"pool of {capacity:,} embeddings on {place}, searched by {way} ({why})",
                capacity=capacity,
                device=str(place),
                search=way,
            )

    @property
    def capacity(self) -> int:
        return len(self.embeddings)

    @property
    def count(self) -> int:
        """How many embeddings it holds."""
        return int(self.filled)

    @property
    def way(self) -> Way:
        """How it is searched, where it lies now."""
        return choose(self.preferred, self.embeddings.device)[0]

    def push(self, embeddings: Tensor, rows: Tensor) -> None:
        """Add the batch in its order, in place of the oldest; of a batch above the capacity the last part stays.

        embeddings: float (B, D), any length, detached and normalised here. rows: int64 (B,), their row ids.
        Raises Lost if an embedding is not finite: the run has diverged.
        """
        assert embeddings.shape == (len(rows), self.embeddings.shape[1]), embeddings.shape
        new, ids = self._unit(embeddings)[-self.capacity :], rows.detach()[-self.capacity :]
        end = self.position + len(rows)
        places = (end - len(ids) + torch.arange(len(ids), device=ids.device)) % self.capacity
        self.embeddings[places] = new
        self.rows[places] = ids
        self.position.copy_(end % self.capacity)
        self.filled.copy_((self.filled + len(rows)).clamp(max=self.capacity))

    def search(self, queries: Tensor) -> Matches:
        """The nearest entry to each query by cosine; of equal ones the first in the buffer. See `search.nearest`.

        queries: float (B, D), any length. Raises ValueError on an empty pool, Lost if a query is not finite.
        """
        if not (count := self.count):
            raise ValueError("the pool is empty, so nothing can be matched: push a batch first")
        places, similarities = nearest(self._unit(queries), self.embeddings[:count], self.way)
        return Matches(self.embeddings[places].to(queries.dtype), self.rows[places], similarities, places)

    def _unit(self, embeddings: Tensor) -> Tensor:
        embeddings = embeddings.detach().float()
        lengths = embeddings.norm(dim=1, keepdim=True)
        if not torch.isfinite(lengths).all():
            raise Lost("an embedding is not finite: set --lr lower, or --warmup-steps higher")
        return embeddings / lengths.clamp(min=1e-12)
