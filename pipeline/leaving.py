"""A dataset without some of its parent's pairs: it references the parent's shards, and a mask leaves the pairs out.

Nothing is copied; to undo it, open the parent. What the parent leaves out is inherited, and whether it contains poison.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from infra import log
from pipeline import dataset, shards
from pipeline.dataset import Dataset
from pipeline.mask import MASK


def recipe(parent: Dataset, by: dict[str, Any]) -> dict[str, Any]:
    """recipe.json of such a dataset, its lineage: for dataset.claim before long work."""
    return {"leave_out": by | {"parent": parent.digest}}


def leave_out(parent: Dataset, pairs: pa.Table, out: str, by: dict[str, Any]) -> Dataset:
    """Write the dataset at the folder `out`, or open it if it is complete.

    pairs: columns shard (id), row, reason, in any order; where a foreign shard holds a pair twice, both are left out.
    by: what chose them, with all that they depend on: the same folder is made by the same `by` alone.

    Raises ValueError for a row that the shard does not have (or leaves out already), if nothing would be left, or if
    the folder is another's; Damaged.
    """
    dataset.claim(out, recipe(parent, by))
    if dataset.is_complete(out):
        return Dataset.open(out)
    lines = _lines(parent, pairs)
    fewer = Counter(lines["shard"].to_pylist())
    bases = [out]
    kept = tuple(
        replace(dataset.reference(out, parent, shard, bases), samples=shard.samples - fewer[shard.id])
        for shard in parent.shards
    )
    mask = lines if parent.mask is None else pa.concat_tables([parent.mask, lines])
    reasons = Counter(lines["reason"].to_pylist())
    outcomes = Counter(parent.outcomes) + reasons
    outcomes[shards.SUCCESS] -= lines.num_rows
    return dataset.finalise(
        out,
        len(kept),
        referenced=kept,
        bases=tuple(bases),
        contains_poison=parent.contains_poison,
        outcomes=dict(sorted(outcomes.items())),
        mask=_by_shard(mask) if mask.num_rows else None,
    )


def _by_shard(mask: pa.Table) -> pa.Table:
    return mask.sort_by([("shard", "ascending"), ("row", "ascending"), ("key", "ascending")]).combine_chunks()


def _lines(parent: Dataset, pairs: pa.Table) -> pa.Table:
    """MASK of these pairs, a line for each sample."""
    wanted: dict[int, dict[int, str]] = {}
    for pair in pairs.select(["shard", "row", "reason"]).to_pylist():
        assert pair["reason"] and pair["reason"] != shards.SUCCESS
        wanted.setdefault(pair["shard"], {})[pair["row"]] = pair["reason"]
    parts = [MASK.empty_table()]
    touched = [shard for shard in parent.shards if shard.id in wanted]
    if strange := wanted.keys() - {shard.id for shard in touched}:
        raise ValueError(f"{parent.url} has no shard {min(strange)}, of which pairs were to be left out")
    with log.progress("leaving out", len(touched), "indexes") as bar:
        for shard in touched:
            rows = wanted[shard.id]
            there = shards.samples_of(parent.index(shard)).select(["row", "key"])
            found = there.filter(pa.compute.is_in(there["row"], pa.array(rows, pa.int64())))
            if strange := rows.keys() - set(found["row"].to_pylist()):
                raise ValueError(f"shard {shard.id} of {parent.url} has no pair of row {min(strange)} to leave out")
            made = [line | {"shard": shard.id, "reason": rows[line["row"]]} for line in found.to_pylist()]
            parts.append(pa.Table.from_pylist(made, schema=MASK))
            bar.add(1)
    return pa.concat_tables(parts)
