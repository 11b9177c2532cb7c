"""The row mask: pairs that lie in a dataset's shards and are left out of it, each with the reason.

    mask.parquet    MASK, beside dataset.json (format 2); the digest of the dataset covers it

`Dataset.index` shows such a pair as a row that failed, its outcome being the reason: whoever reads samples through an
index honours the mask without knowing of it.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.errors import Damaged
from pipeline import shards

FILE = "mask.parquet"
FORMAT = 2  # of a dataset with a mask: whoever does not know of masks refuses it
MASK = pa.schema(
    [
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("key", pa.string()),  # by which people know the pair
        ("reason", pa.string()),  # as an outcome is called: truncated, filtered, ...
    ]
)
_PLACES = tuple(f"{member}_{what}" for member in ("image", "text", "json") for what in ("offset", "bytes"))
_GONE = ("extension", "width", "height", "source_sha256", "image_sha256", *_PLACES)  # what a failed row does not have


def lines_of(mask: pa.Table, shard_id: int) -> pa.Table:
    """The lines of one shard. mask: sorted by shard."""
    first, last = np.searchsorted(mask["shard"].to_numpy(), [shard_id, shard_id + 1])
    return mask.slice(first, last - first)


def applied(index: pa.Table, lines: pa.Table, place: str) -> pa.Table:
    """An index, or its columns row and outcome with others, with these pairs as failed rows.

    lines: MASK, of this shard; every pair in it with such a row id is left out. place: of the index, for messages.
    Raises Damaged unless they are just as many.
    """
    if not lines.num_rows:
        return index
    there = pa.compute.equal(index["outcome"], shards.SUCCESS)
    masked = pa.compute.and_(there, pa.compute.is_in(index["row"], lines["row"].combine_chunks()))
    if (found := pa.compute.sum(masked).as_py() or 0) != lines.num_rows:
        raise Damaged(f"{place} lists {found} pairs that the mask leaves out, the mask {lines.num_rows}")
    reasons = dict(zip(lines["row"].to_pylist(), lines["reason"].to_pylist(), strict=True))
    rows = zip(index["row"].to_pylist(), index["outcome"].to_pylist(), masked.to_pylist(), strict=True)
    outcomes = [reasons[row] if left_out else outcome for row, outcome, left_out in rows]
    for name in index.column_names:
        field = index.schema.field(name)
        if name == "outcome":
            index = index.set_column(index.column_names.index(name), field, pa.array(outcomes, field.type))
        elif name in _GONE:
            gone = pa.compute.if_else(masked, pa.scalar(None, field.type), index[name])
            index = index.set_column(index.column_names.index(name), field, gone)
    return index


def check(place: str, mask: pa.Table, shard_ids: Iterable[int]) -> None:
    """Raises Damaged for a mask that cannot be."""
    if not mask.schema.equals(MASK) or any(column.null_count for column in mask.columns) or not mask.num_rows:
        raise Damaged(f"{place} has not the columns of a mask, or no line")
    named = mask["shard"].to_numpy()
    if (np.diff(named) < 0).any() or not set(np.unique(named).tolist()) <= set(shard_ids):
        raise Damaged(f"{place} is not sorted by shard, or names one that shards.parquet does not list")
    if shards.SUCCESS in pa.compute.unique(mask["reason"]).to_pylist():
        raise Damaged(f"{place} leaves a pair out for the reason {shards.SUCCESS!r}")


def written_into(digest: "hashlib._Hash", mask: pa.Table) -> None:
    """What the digest of a dataset takes of its mask."""
    digest.update(b"left out\n")
    for line in mask.select(["shard", "row", "reason"]).to_pylist():
        digest.update(f"{line['shard']} {line['row']} {line['reason']}\n".encode())
