"""Which samples make which batch: a pure function of (seed, epoch, number of samples), and of roles where they matter.

A sample's id is its position over the dataset's shards, sorted by shard id; pairs that its mask leaves out have none.
Contents and places do not enter, so a clean, a control and a poisoned run see their rows in the same order. Ranks and
workers do not enter either: a rank takes its slice of the global batch.
"""

import numpy as np

from infra.seeding import hash64


def permutation(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """int64 (num_samples,): the order of one epoch. By hash, since numpy may change what a seed shuffles."""
    return np.argsort(hash64(seed, f"order of epoch {epoch}", np.arange(num_samples)), kind="stable")


def epoch_ids(seed: int, epoch: int, batch: int, num_samples: int, roles: np.ndarray | None = None) -> np.ndarray:
    """Sample ids of an epoch's whole batches, one after another: int64 (steps * batch,).

    roles: int64 per sample id; where they are given, the lowest come first, and those of a role in the epoch's order.
    The incomplete batch is left out before, so that what it costs does not fall on the last role alone.
    """
    ids = permutation(seed, epoch, num_samples)[: steps_per_epoch(num_samples, batch) * batch]
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


def batch_ids(ids: np.ndarray, step_in_epoch: int, batch: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
    """One rank's part of one global batch, of the epoch's ids: int64 (batch / ranks,). Parts in rank order are it."""
    assert 0 <= rank < ranks
    assert 0 <= step_in_epoch < len(ids) // batch
    part = per_rank(batch, ranks)
    start = step_in_epoch * batch + rank * part
    return ids[start : start + part]
