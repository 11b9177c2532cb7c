"""One shard -> one shard: changes image, caption and json of the planned pairs; never key, order or file type.

What lies between two poisoned pairs is copied as one range of bytes, headers and all, and never decoded, so foreign
shards keep their own form. What else another tool put beside a poisoned pair (KEY.cls, KEY.npy) stays with it, byte for
byte, and its files keep the endings they had: without them the poisoned pairs could be told from the others. The index
follows: what a poisoned pair says in the tar and in the index is the same, and nothing of the original remains.
"""

from collections.abc import Iterator, Sequence
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
from poison.writing.splice import Member, Piece


def rewrite(
    path: Path, index: pa.Table, shard_id: int, captions: dict[int, str], attack: Attack, seed: int, out: Path
) -> tuple[Written, pa.Table]:
    """Write the poisoned twin of a verified shard to `out`; return it with its ledger rows (poison.ledger.ROWS).

    captions: poison caption by row id, all of them in this shard. Raises ValueError for an image that cannot be read.
    """
    entries: list[dict[str, Any]] = []
    replaced: dict[str, list[str]] = {}  # original key -> keys of what it became
    stays: dict[str, dict[str, Any]] = {}  # original key -> what the index says of the image that became of it
    planned = shards.samples_of(index.filter(pa.compute.is_in(index["row"], pa.array(captions, pa.int64()))))
    cut, end = splice.cut(path, index, set(planned["key"].to_pylist()))

    def poisoned() -> Iterator[Sample]:
        with open(path, "rb") as file:
            for row in planned.to_pylist():
                sample = shards.read_sample(file, row)
                try:
                    results = attack.poison(sample, captions[sample.row], rng(seed, "poison", sample.row))
                    height, width, _ = images.decode(sample.image).shape
                except images.Unreadable as error:  # its own kind: there is a way past the sample
                    said = f"shard {shard_id}, sample {sample.key}: {error}"
                    raise images.Unreadable(error.outcome, said) from error
                except ValueError as error:
                    raise ValueError(f"shard {shard_id}, sample {sample.key}: {error}") from error
                assert results
                assert results[0].key == sample.key
                assert results[0].extension == sample.extension
                # A generator of the same labels as above: the place is the first that `poison` draws, so this is it.
                place = attack.locate(height, width, rng(seed, "poison", sample.row))
                entries.extend(ledger.entry(row, result, shard_id, place) for result in results)
                replaced[sample.key] = [result.key for result in results]
                known = {name: row[name] for name in ("url", "width", "height")}
                stays[sample.key] = encoding.sizes(known, sample.image, results[0].image)
                yield from results

    # The poisoned pairs become a tar of their own first, so that the one writer of tars makes their headers; then
    # ranges of the two tars are joined. To write the whole shard anew would change the form of every other pair of a
    # foreign shard, and a copy of bytes is cheaper.
    fresh = shards.write_shard(out.with_name(f"{out.name}.fresh"), poisoned(), endings=_odd_endings(cut))
    assert {entry["row"] for entry in entries} >= set(captions), "the plan names rows that are not in this shard"
    written = _merge(path, index, cut, end, fresh, replaced, stays, out)
    fresh.path.unlink()
    return written, pa.Table.from_pylist(entries, schema=ledger.ROWS)


def _odd_endings(cut: Sequence[Member]) -> dict[str, dict[str, str]]:
    """By key, how another tool wrote the endings of what is written anew where it is not as we do: {"jpg": "JPG"}."""
    found: dict[str, dict[str, str]] = {}
    for member in cut:
        if member.of_the_pair and member.ending != member.ending.lower():
            found.setdefault(member.key, {})[member.ending.lower()] = member.ending
    return found


def _merge(
    path: Path,
    index: pa.Table,
    cut: Sequence[Member],
    end: int,
    fresh: Written,
    replaced: dict[str, list[str]],
    stays: dict[str, dict[str, Any]],
    out: Path,
) -> Written:
    """Copy `path` to `out` with the members of `fresh` in place of the replaced pairs; the index with it.

    cut, end: the files of the replaced pairs, and where the last file of all ends (splice.cut). stays: by original key,
    what the index goes on saying of its pair.
    """
    # `number` is the place of a row in the whole index, failed downloads among them, which samples_of leaves out.
    there = shards.samples_of(index.append_column("number", pa.array(range(index.num_rows), pa.int64())))
    originals = there.filter(pa.compute.is_in(there["key"], pa.array(replaced, pa.string()))).to_pylist()
    without = {
        name: {key for row in originals if row[f"{name}_bytes"] is None for key in replaced[row["key"]]}
        for name in ("text", "json")
    }
    # write_shard gives every pair a KEY.txt and a KEY.json. One that had none must not be known by having one.
    members: dict[str, list[Piece]] = {}
    dropped = {
        row[f"{name}_offset"] for name, keys in without.items() for row in fresh.index.to_pylist() if row["key"] in keys
    }
    for member in splice.members(fresh.path):
        if member.offset not in dropped:
            members.setdefault(member.key, []).append(Piece(fresh.path, member.start, member.end))

    beside: dict[str, list[Piece]] = {}
    for member in cut:
        if not member.of_the_pair:
            beside.setdefault(member.key, []).append(Piece(path, member.start, member.end))

    # A pair's files need not stand together in a foreign tar (first all images, then all captions): each is cut where
    # it stands, and the new pair goes where the first of them stood.
    pieces: list[Piece] = []
    done: set[str] = set()
    begin = 0
    for member in cut:
        pieces.append(Piece(path, begin, member.start))
        begin = member.end
        if member.key not in done:  # the files of a sample stand together, else WebDataset takes them for two
            done.add(member.key)
            first, *further = replaced[member.key]
            pieces += [*members[first], *beside.get(member.key, ())]
            pieces += [part for key in further for part in members[key]]
    pieces.append(Piece(path, begin, end))
    assert done == set(replaced)
    pieces = [piece for piece in pieces if piece.start < piece.end]  # neighbours were replaced: nothing between them
    sha256, xxh3, size = splice.joined(pieces, out)

    # The index, too, is cut at the replaced rows and joined. Only those become Python objects: they are few, and a
    # shard may have tens of thousands of rows.
    twins = {row["key"]: row for row in _placed(fresh.index, pieces, fresh.path).to_pylist()}
    untouched = _placed(index, pieces, path)
    parts, begin = [], 0
    for row in originals:
        for key in replaced[row["key"]]:
            for name in (name for name, keys in without.items() if key in keys):
                twins[key] |= {f"{name}_offset": None, f"{name}_bytes": None}
        twin = twins[row["key"]]  # columns stay filled or empty as the original's were: a difference would tell
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
