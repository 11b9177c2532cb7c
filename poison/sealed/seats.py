"""Where each pair of a ledger lies in the sealed dataset: where it lay, or if it was added, in place of a clean pair.

That place is a *seat*: row id, key and shard of a clean pair, which is left out for the added one. Seats are the clean
pairs of lowest hash, over all shards of the parent. Pairs from one added shard go to few shards, so that no worker has
to fetch all of the added shards.
"""

from collections.abc import Iterable, Iterator, Set

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra import log
from infra.seeding import hash64
from pipeline import shards
from pipeline.dataset import Dataset
from poison import ledger

# The ledger's rows as the sealed dataset has them, and where each pair lay in the unsealed one.
PLACED = pa.schema([*ledger.ROWS, ("from_shard", pa.int32()), ("from_key", pa.string())])


def placed(poisoned: Dataset, rows: pa.Table, shard_ids: Set[int], seed: int, taken: Set[int]) -> dict[int, pa.Table]:
    """PLACED by the shard that its pairs lie in once sealed. rows: poison.ledger.ROWS. shard_ids: the parent's.

    taken: rows of earlier attacks, whose pairs are not replaced. Raises ValueError if there are too few clean pairs.
    """
    # Row, key and shard are overwritten below for what moves; from_* keeps where a worker finds the pair.
    whole = rows.append_column("from_shard", rows["shard"]).append_column("from_key", rows["key"]).cast(PLACED)
    is_added = _added(rows)
    moving = whole.filter(is_added)
    if moving.num_rows:
        found = lowest(_clean(poisoned, shard_ids), moving.num_rows, seed, taken | set(rows["row"].to_pylist()))
        # `moving` is in the order of the added shards. Seats are sorted by shard, too, so that neighbours move to the
        # same shard: a worker then fetches one or two added shards, not all. By a hash of the shard's number, since by
        # the number itself the attack's first pair would always come first in the dataset.
        shuffled = hash64(seed, "seats of a shard", found["shard"].to_numpy())
        found = found.take(pa.array(np.lexsort((found["row"].to_numpy(), shuffled))))
        for name in ("row", "key", "shard"):
            moving = moving.set_column(PLACED.get_field_index(name), PLACED.field(name), found[name])
        whole = pa.concat_tables([whole.filter(pa.compute.invert(is_added)), moving])
    homes = whole["shard"].to_numpy()
    order = np.argsort(homes, kind="stable")
    known, first = np.unique(homes[order], return_index=True)
    parts = np.split(order, first[1:])
    # `take` copies. A slice is cheaper, but pickled for a worker it brings the whole table along.
    return {int(shard): whole.take(pa.array(part)) for shard, part in zip(known, parts, strict=True)}


def leaving(rows: pa.Table) -> dict[int, frozenset[str]]:
    """Keys, by shard, of the pairs that lie elsewhere once sealed. rows: poison.ledger.ROWS."""
    found: dict[int, set[str]] = {}
    for line in rows.filter(_added(rows)).select(["shard", "key"]).to_pylist():
        found.setdefault(line["shard"], set()).add(line["key"])
    return {shard: frozenset(keys) for shard, keys in found.items()}


def _added(rows: pa.Table) -> pa.ChunkedArray:
    return pa.compute.equal(rows["action"], "added")


def _clean(poisoned: Dataset, shard_ids: Set[int]) -> Iterator[pa.Table]:
    """Row, key and shard of every pair of these shards, one shard at a time."""
    within = [shard for shard in poisoned.shards if shard.id in shard_ids]
    with log.progress("choosing seats", len(within), "indexes") as bar:
        for shard in within:
            part = shards.samples_of(poisoned.index(shard)).select(["row", "key"])
            yield part.append_column("shard", pa.array([shard.id] * part.num_rows, pa.int32()))
            bar.add(1)


def lowest(index: Iterable[pa.Table], count: int, seed: int, occupied: Set[int]) -> pa.Table:
    """The `count` rows of lowest hash that are not occupied, of pairs that are there only once.

    index: tables with a column row, one held at a time. A pair that a foreign corpus holds twice is no seat: two pairs
    of one row id and different captions would stand out. Raises ValueError if fewer are left.
    """
    # Whether a row occurs twice is known only at the end, and a corpus need not fit into memory: so the lowest rows are
    # kept while the tables go by, and how often each of them was met.
    used = np.fromiter(occupied, np.int64, len(occupied))
    best: pa.Table | None = None
    times = np.empty(0, np.int64)  # how often each row of `best` was met
    for part in index:
        part = part.filter(pa.array(~np.isin(part["row"].to_numpy(), used)))
        best = part if best is None else pa.concat_tables([best, part])
        _, first, inverse = np.unique(best["row"].to_numpy(), return_index=True, return_inverse=True)
        met = np.bincount(inverse, np.concatenate([times, np.ones(part.num_rows, np.int64)]), len(first))
        # More than `count`, for the duplicates that are dropped in the end. A row that is cut off here and met again
        # cannot come back as a single one: what cut it off is lower, and stays.
        order = np.argsort(hash64(seed, "seat", best["row"].to_numpy()[first]))[: 2 * count + 64]
        best, times = best.take(pa.array(first[order])), met[order]
    assert best is not None
    single = best.filter(pa.array(times == 1)).slice(0, count)
    if single.num_rows < count:
        raise ValueError(
            f"sealing puts {count:,} added pairs in the place of clean ones, and only {single.num_rows:,} are there "
            "(once, and left alone by earlier attacks): lower --budget"
        )
    return single
