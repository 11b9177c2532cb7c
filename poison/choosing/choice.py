"""Which pairs are poisoned: those of lowest hash. No order, sharding or number of workers can change the answer."""

from collections.abc import Iterable, Set

import numpy as np
import pyarrow as pa

from infra.seeding import hash64
from poison.choosing import captions


def lowest(
    index: Iterable[pa.Table],
    budget: int,
    seed: int,
    taken: Set[int],
    *,
    excluding: str | None = None,
    requiring: str | None = None,
) -> np.ndarray:
    """The `budget` row ids of lowest hash64(seed, "poison", row): int64 (budget,), sorted.

    index: tables with columns row and caption; one is held at a time. Left out are rows in `taken`, those whose caption
    names `excluding` and those whose caption does not name `requiring`. A pair that a foreign corpus holds twice has
    one row id and counts once.
    Raises ValueError if fewer than `budget` rows are left.
    """
    occupied = np.fromiter(taken, np.int64, len(taken))
    rows, keys = np.empty(0, np.int64), np.empty(0, np.uint64)
    total = 0
    for part in index:
        total += part.num_rows
        found = part["row"].to_numpy()
        hashes = hash64(seed, "poison", found)
        # Most of a large corpus is settled here, before any caption is looked at.
        places = np.flatnonzero(hashes < keys.max()) if len(rows) == budget else np.arange(len(found))
        places = places[~np.isin(found[places], occupied)]
        for word, wanted in ((excluding, False), (requiring, True)):
            if word is not None:
                places = places[captions.naming(part["caption"].take(pa.array(places)), word) == wanted]
        if not len(places):
            continue
        rows, first = np.unique(np.concatenate([rows, found[places]]), return_index=True)
        keys = np.concatenate([keys, hashes[places]])[first]
        if len(rows) > budget:
            kept = np.argpartition(keys, budget - 1)[:budget]
            rows, keys = rows[kept], keys[kept]
    if len(rows) < budget:
        named = f", those that name {excluding!r}" if excluding is not None else ""
        named += f", those that do not name {requiring!r}" if requiring is not None else ""
        earlier = f", {len(taken):,} rows of earlier ledgers" if taken else ""
        raise ValueError(
            f"a budget of {budget:,} pairs is more than can be poisoned: of {total:,} pairs {len(rows):,} are left "
            f"(without duplicates{named}{earlier}); lower --budget, or raise --share-of-shards if it is below 1"
        )
    return np.sort(rows)


def share_of_shards(ids: Iterable[int], share: float, seed: int) -> frozenset[int]:
    """The shards an attacker reaches: the given share of them, at least one, of lowest hash of their ids."""
    known = np.array(sorted(ids), np.int64)
    if share == 1.0:
        return frozenset(known.tolist())
    count = max(1, round(share * len(known)))
    order = np.argsort(hash64(seed, "poisoned shards", known))
    return frozenset(known[order[:count]].tolist())
