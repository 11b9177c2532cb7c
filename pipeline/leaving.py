"""A dataset without some of its parent's pairs: it references the parent's shards, and a mask leaves the pairs out.

Nothing is copied; to undo it, open the parent. What the parent leaves out is inherited, and whether it contains poison.
"""

from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute

from infra import log, storage
from pipeline import dataset, shards
from pipeline.dataset import Dataset
from pipeline.mask import MASK


def recipe(parent: Dataset, by: dict[str, Any]) -> dict[str, Any]:
    """recipe.json of such a dataset, its lineage: for dataset.claim before long work."""
    older = ancestry(parent.url)
    found = by | {"parent": parent.digest} | ({"older": list(older)} if older else {})
    return {"leave_out": found | ({"filtered": True} if _filtered(parent.url) else {})}


def ancestry(url: str) -> tuple[str, ...]:
    """Digests of the datasets of which the one at a folder is a part, the nearest first; () where it is no part."""
    made = _how(url)
    return (made["parent"], *made.get("older", ())) if "parent" in made else ()


def lineage(url: str) -> dict[str, list[str]]:
    """What a run that learns from it is to remember: the same, as `filtered_from` where a filter left pairs out, else
    as `part_of`: who mends a dataset has not cured it."""
    found = list(ancestry(url))
    return {"filtered_from" if _filtered(url) else "part_of": found} if found else {}


def _filtered(url: str) -> bool:
    """Whether a filter left pairs out of it, or of what it is a part of."""
    made = _how(url)
    return "filter" in made or bool(made.get("filtered"))


def _how(url: str) -> dict[str, Any]:
    """What its recipe.json says of the leaving out; {} where nothing was."""
    place = storage.join(url, "recipe.json")
    made = storage.read_json(place) if storage.exists(place) else {}
    found = made.get("leave_out") if isinstance(made, dict) else None
    return found if isinstance(found, dict) else {}


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
    left = without(parent, pairs)
    bases = [out]
    kept = tuple(dataset.reference(out, parent, shard, bases) for shard in left.shards)
    return dataset.finalise(
        out,
        len(kept),
        referenced=kept,
        bases=tuple(bases),
        contains_poison=parent.contains_poison,
        outcomes=left.outcomes,
        mask=left.mask,
    )


def without(parent: Dataset, pairs: pa.Table) -> Dataset:
    """The parent without these pairs as a value alone; it has no digest. Raises ValueError, as `leave_out` does."""
    lines = _lines(parent, pairs)
    fewer = Counter(lines["shard"].to_pylist())
    kept = tuple(replace(shard, samples=shard.samples - fewer[shard.id]) for shard in parent.shards)
    mask = lines if parent.mask is None else pa.concat_tables([parent.mask, lines])
    outcomes = Counter(parent.outcomes) + Counter(lines["reason"].to_pylist())
    outcomes[shards.SUCCESS] -= lines.num_rows
    return replace(
        parent,
        digest="",
        samples=parent.samples - lines.num_rows,
        shards=kept,
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
