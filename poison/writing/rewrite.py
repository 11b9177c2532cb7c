"""One shard -> one shard: changes image, caption and json of the planned pairs; never key, order or file type.

What lies between two poisoned pairs is copied as one range of bytes, headers and all, and never decoded, so foreign
shards keep their own form. The index follows: what a poisoned pair says in the tar and in the index is the same, and
nothing of the original remains.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.seeding import rng
from pipeline import images, shards
from pipeline.shards import Sample, Written
from poison import ledger
from poison.attack import Attack
from poison.writing import encoding, splice
from poison.writing.splice import Piece


def rewrite(
    path: Path, index: pa.Table, shard_id: int, captions: dict[int, str], attack: Attack, seed: int, out: Path
) -> tuple[Written, pa.Table]:
    """Write the poisoned twin of a verified shard to `out`; return it with its ledger rows (poison.ledger.ROWS).

    captions: poison caption by row id, all of them in this shard. Raises ValueError for an image that cannot be read.
    """
    entries: list[dict[str, Any]] = []
    replaced: dict[str, list[str]] = {}  # original key -> keys of what it became
    stays: dict[str, dict[str, Any]] = {}  # original key -> what the index says of the image that became of it

    def poisoned() -> Iterator[Sample]:
        planned = pa.compute.is_in(index["row"], pa.array(captions, pa.int64()))
        with open(path, "rb") as file:
            for row in shards.samples_of(index.filter(planned)).to_pylist():
                sample = shards.read_sample(file, row)
                try:
                    results = attack.poison(sample, captions[sample.row], rng(seed, "poison", sample.row))
                    height, width, _ = images.decode(sample.image).shape
                except ValueError as error:
                    raise ValueError(f"shard {shard_id}, sample {sample.key}: {error}") from error
                assert results
                assert results[0].key == sample.key
                assert results[0].extension == sample.extension
                place = attack.locate(height, width, rng(seed, "poison", sample.row))
                entries.extend(ledger.entry(row, result, shard_id, place) for result in results)
                replaced[sample.key] = [result.key for result in results]
                said = {name: row[name] for name in ("url", "width", "height")}
                stays[sample.key] = encoding.sizes(said, sample.image, results[0].image)
                yield from results

    fresh = shards.write_shard(out.with_name(f"{out.name}.fresh"), poisoned())
    assert {entry["row"] for entry in entries} >= set(captions), "the plan names rows that are not in this shard"
    written = _merge(path, index, fresh, replaced, stays, out)
    fresh.path.unlink()
    return written, pa.Table.from_pylist(entries, schema=ledger.ROWS)


def _merge(
    path: Path,
    index: pa.Table,
    fresh: Written,
    replaced: dict[str, list[str]],
    stays: dict[str, dict[str, Any]],
    out: Path,
) -> Written:
    """Copy `path` to `out` with the members of `fresh` in place of the replaced pairs; the index with it."""
    there = shards.samples_of(index.append_column("number", pa.array(range(index.num_rows), pa.int64())))
    originals = there.filter(pa.compute.is_in(there["key"], pa.array(replaced, pa.string()))).to_pylist()
    without_json = {key for row in originals if row["json_bytes"] is None for key in replaced[row["key"]]}
    members: dict[str, list[Piece]] = {}
    dropped = {row["json_offset"] for row in fresh.index.to_pylist() if row["key"] in without_json}
    for member in splice.members(fresh.path):
        if member.offset not in dropped:  # a pair without KEY.json stays one
            members.setdefault(member.key, []).append(Piece(fresh.path, member.start, member.end))

    pieces: list[Piece] = []
    done: set[str] = set()
    cut, end = splice.cut(path, index, replaced)
    begin = 0
    for member in cut:
        pieces.append(Piece(path, begin, member.start))
        begin = member.end
        if member.key not in done:
            done.add(member.key)
            pieces += [part for key in replaced[member.key] for part in members[key]]
    pieces.append(Piece(path, begin, end))
    assert done == set(replaced)
    pieces = [piece for piece in pieces if piece.start < piece.end]
    sha256, xxh3, size = splice.joined(pieces, out)

    twins = {row["key"]: row for row in _placed(fresh.index, pieces, fresh.path).to_pylist()}
    untouched = _placed(index, pieces, path)
    parts, begin = [], 0
    for row in originals:
        for key in replaced[row["key"]]:
            twins[key] |= {"json_offset": None, "json_bytes": None} if key in without_json else {}
        twin = twins[row["key"]]  # the columns stay filled, or empty, as the original's were
        twin |= stays[row["key"]]
        known = row["source_sha256"] is not None
        twin["source_sha256"] = (twin["source_sha256"] or twin["image_sha256"]) if known else None
        parts.append(untouched.slice(begin, row["number"] - begin))
        parts.append(pa.Table.from_pylist([twins[key] for key in replaced[row["key"]]], schema=shards.INDEX))
        begin = row["number"] + 1
    rebuilt = pa.concat_tables([*parts, untouched.slice(begin)]).combine_chunks()
    return Written(out, rebuilt, shards.samples_of(rebuilt).num_rows, size, sha256, xxh3)


def _placed(index: pa.Table, pieces: list[Piece], path: Path) -> pa.Table:
    """An index of `path` with the places that its members have in the joined pieces."""
    for name in splice.PLACES:
        column = index[name]
        places = splice.moved(pieces, path, column.fill_null(0).to_numpy())
        values = pa.array(places, pa.int64(), mask=np.asarray(column.is_null()))
        index = index.set_column(index.column_names.index(name), shards.INDEX.field(name), values)
    return index
