"""Which pairs are poisoned: those of lowest hash. No order, sharding or number of workers can change the answer."""

from collections.abc import Iterable, Set

import numpy as np
import pyarrow as pa

from infra.seeding import hash64
from poison.choosing import captions

SPARE = 32  # further rows to fall back on where one is passed over for its many copies
LAST = 256  # rows of which every sum is tried


def lowest(
    index: Iterable[pa.Table],
    budget: int,
    seed: int,
    taken: Set[int],
    *,
    excluding: str | None = None,
    requiring: str | None = None,
) -> np.ndarray:
    """The row ids of lowest hash64(seed, "poison", row) that are `budget` pairs together: int64 (n,), sorted.

    index: tables with columns row and caption; one is held at a time. Left out are rows in `taken`, those whose caption
    names `excluding` and those whose caption does not name `requiring`.

    A pair that a foreign corpus holds c times has one row id. It is poisoned in all its copies or in none, and counts
    as c pairs, so that a row id says of every copy whether it is poisoned; one that is more than what is left of the
    budget is passed over. n is below `budget` only where there are such pairs.
    Raises ValueError if fewer than `budget` pairs are left, or if their copies do not add up to it.
    """
    occupied = np.fromiter(taken, np.int64, len(taken))
    rows, keys, copies = np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.int64)
    total = candidates = 0
    kept = budget + SPARE
    for part in index:
        total += part.num_rows
        found = part["row"].to_numpy()
        hashes = hash64(seed, "poison", found)
        # Most of a large corpus is settled here, before any caption is looked at. What is left out once stays out, for
        # the highest hash that is kept only falls: so all copies of a row that is kept at the end have been counted.
        places = np.flatnonzero(hashes <= keys.max()) if len(rows) == kept else np.arange(len(found))
        places = places[~np.isin(found[places], occupied)]
        for word, wanted in ((excluding, False), (requiring, True)):
            if word is not None:
                places = places[captions.naming(part["caption"].take(pa.array(places)), word) == wanted]
        if not len(places):
            continue
        candidates += len(places)
        rows, first, inverse = np.unique(np.concatenate([rows, found[places]]), return_index=True, return_inverse=True)
        met = np.concatenate([copies, np.ones(len(places), np.int64)])
        copies = np.bincount(inverse, met, len(rows)).astype(np.int64)
        keys = np.concatenate([keys, hashes[places]])[first]
        if len(rows) > kept:
            lowest_ones = np.argpartition(keys, kept - 1)[:kept]
            rows, keys, copies = rows[lowest_ones], keys[lowest_ones], copies[lowest_ones]
    if copies.sum() < budget:
        named = f", those that name {excluding!r}" if excluding is not None else ""
        named += f", those that do not name {requiring!r}" if requiring is not None else ""
        earlier = f", {len(taken):,} rows of earlier ledgers" if taken else ""
        without = f" (without{(named + earlier)[1:]})" if named + earlier else ""
        raise ValueError(
            f"a budget of {budget:,} pairs is more than can be poisoned: of {total:,} pairs {candidates:,} are left"
            f"{without}; lower --budget, or raise --share-of-shards if it is below 1"
        )
    order = np.argsort(keys)
    return np.sort(rows[order[_adding_up(copies[order].tolist(), budget)]])


def _adding_up(sizes: list[int], budget: int) -> list[int]:
    """Places in `sizes`, the first that fit, whose sizes add up to the budget. Raises ValueError if none do.

    Which sums the last LAST of them can make is known, as bits of one number; so what is taken before never spoils it
    as long as those last can make up for what is left.
    """
    last = max(0, len(sizes) - LAST)
    taken, left = [], budget
    for place, size in enumerate(sizes[:last]):
        if size <= left:
            taken.append(place)
            left -= size
    sums = [1]  # of none, of the last one, of the last two, ...: bit s is set if some of them add up to s
    for size in reversed(sizes[last:]):
        sums.append((sums[-1] | sums[-1] << size) & ((1 << (left + 1)) - 1))
    if not sums[-1] >> left:
        below = budget - left + sums[-1].bit_length() - 1
        raise ValueError(
            f"a budget of {budget:,} pairs cannot be met exactly: pairs that are there several times are poisoned in "
            f"all their copies; give --budget {below:,}" + (", or a larger one" if below else "")
        )
    for place, size in enumerate(sizes[last:], last):
        if size <= left and sums[len(sizes) - place - 1] >> (left - size) & 1:
            taken.append(place)
            left -= size
    assert not left
    return taken


def share_of_shards(ids: Iterable[int], share: float, seed: int) -> frozenset[int]:
    """The shards an attacker reaches: the given share of them, at least one, of lowest hash of their ids."""
    known = np.array(sorted(ids), np.int64)
    if share == 1.0:
        return frozenset(known.tolist())
    count = max(1, round(share * len(known)))
    order = np.argsort(hash64(seed, "poisoned shards", known))
    return frozenset(known[order[:count]].tolist())
