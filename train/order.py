"""Which samples make which batch: a pure function of (seed, epoch, number of samples), and of roles where they matter.

A sample's id is its position over the dataset's shards, sorted by shard id; pairs that its mask leaves out have none.
Contents and places do not enter, so a clean, a control and a poisoned run see their rows in the same order. Ranks and
workers do not enter either: a rank takes its slice of the global batch.
"""

from collections.abc import Iterator

import numpy as np

from infra.seeding import hash64

LARGEST = 1 << 24  # ids that are sorted at a time: 16 million take a second and 400 MiB
BLOCK = 1 << 15  # ids that are hashed at a time, in a processor's cache


def permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """int64 (num_samples,): the order of one epoch. By hash, since numpy may change what a seed shuffles."""
    return np.argsort(_hashes(seed, epoch, np.arange(num_samples)))  # no two are equal


class InParts:
    """The permutation of an epoch, the first `length` of it, of which a part is made where it is read: as of an array,
    `[start:stop]` is int64 (stop - start,).

    Ids are sorted by their hash, so the ids of a range of hashes are a stretch of the order. One pass over all ids
    counts the hashes of each range, and each part takes another; of 400 million ids it takes some 3 s.
    """

    def __init__(self, seed: int, epoch: int, num_samples: int, length: int) -> None:
        self.seed, self.epoch, self.num_samples, self.length = seed, epoch, num_samples, length
        self.shift = np.uint64(64 - ((num_samples - 1) // LARGEST).bit_length())  # what is above it is the range
        counts = np.zeros(1 << (64 - int(self.shift)), np.int64)
        for _, hashes in self._blocks():
            counts += np.bincount((hashes >> self.shift).view(np.int64), minlength=len(counts))
        self.ends = np.cumsum(counts)
        self.known: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, _ = where.indices(self.length)
        first, last = np.searchsorted(self.ends, (start, max(start, stop - 1)), side="right").tolist()
        parts = [self._part(number) for number in range(first, last + 1)]
        before = int(self.ends[first - 1]) if first else 0
        return (parts[0] if len(parts) == 1 else np.concatenate(parts))[start - before : stop - before]

    def _part(self, number: int) -> np.ndarray:
        if self.known is None or self.known[0] != number:
            self.known = None  # its room is needed
            ids, hashes = [], []
            for start, block in self._blocks():
                chosen = np.flatnonzero(block >> self.shift == np.uint64(number))
                ids.append(chosen + start)
                hashes.append(block[chosen])
            self.known = number, np.concatenate(ids)[np.argsort(np.concatenate(hashes))]
        return self.known[1]

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, self.num_samples, BLOCK):
            yield start, _hashes(self.seed, self.epoch, np.arange(start, min(start + BLOCK, self.num_samples)))


def _hashes(seed: int, epoch: int, ids: np.ndarray) -> np.ndarray:
    return hash64(seed, f"order of epoch {epoch}", ids)


def epoch_ids(
    seed: int, epoch: int, batch: int, num_samples: int, roles: np.ndarray | None = None
) -> np.ndarray | InParts:
    """Sample ids of an epoch's whole batches, one after another: int64 (steps * batch,).

    roles: int64 per sample id; where they are given, the lowest come first, and those of a role in the epoch's order.
    The incomplete batch is left out before, so that what it costs does not fall on the last role alone.
    """
    length = steps_per_epoch(num_samples, batch) * batch
    if roles is None and num_samples > LARGEST:
        return InParts(seed, epoch, num_samples, length)
    ids = permutation(seed, epoch, num_samples)[:length]
    return ids if roles is None else ids[np.argsort(roles[ids], kind="stable")]


def steps_per_epoch(num_samples: int, batch: int) -> int:
    """The last incomplete batch is dropped. Raises ValueError if there is not one whole batch."""
    if batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    if num_samples < batch:
        raise ValueError(
            f"the dataset has {num_samples:,} samples, less than one batch of {batch:,}: set --batch lower"
        )
    return num_samples // batch


def per_rank(batch: int, ranks: int) -> int:
    """Samples of a batch that one rank reads. Raises ValueError unless the ranks divide it."""
    if batch % ranks:
        raise ValueError(
            f"a batch of {batch} cannot be divided among {ranks} ranks: set --batch to a multiple of {ranks}"
        )
    return batch // ranks


def batch_ids(ids: np.ndarray | InParts, step_in_epoch: int, batch: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
    """One rank's part of one global batch, of the epoch's ids: int64 (batch / ranks,). Parts in rank order are it."""
    assert 0 <= rank < ranks
    assert 0 <= step_in_epoch < len(ids) // batch
    part = per_rank(batch, ranks)
    start = step_in_epoch * batch + rank * part
    return ids[start : start + part]
