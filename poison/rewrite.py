"""One shard -> one shard: changes picture, caption and json of the planned pairs; never key, order or file type.

Every other member is copied as it lies, header and all, and never decoded, so foreign shards keep their own form. The
index follows: what a poisoned pair says in the tar and in the index is the same, and nothing of the original remains.
"""

import mmap
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from infra.seeding import rng
from pipeline import images, shards
from pipeline.shards import Sample, Written
from poison import ledger
from poison.attack import Attack


@dataclass(frozen=True)
class Member:
    """One file of a tar with the headers before it: bytes [start, end), its content from `offset`."""

    key: str
    start: int
    offset: int
    end: int


def rewrite(
    path: Path, index: pa.Table, shard_id: int, captions: dict[int, str], attack: Attack, seed: int, out: Path
) -> tuple[Written, pa.Table]:
    """Write the poisoned twin of a verified shard to `out`; return it with its ledger rows (poison.ledger.ROWS).

    captions: poison caption by row id, all of them in this shard. Raises ValueError for a picture that cannot be read.
    """
    entries: list[dict[str, Any]] = []
    replaced: dict[str, list[str]] = {}  # original key -> keys of what it became

    def poisoned() -> Iterator[Sample]:
        with open(path, "rb") as file:
            for row in shards.samples_of(index).to_pylist():
                if row["row"] not in captions:
                    continue
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
                yield from results

    fresh = shards.write_shard(out.with_name(f"{out.name}.fresh"), poisoned())
    assert {entry["row"] for entry in entries} >= set(captions), "the plan names rows that are not in this shard"
    written = shards.describe(out, _merge(path, index, fresh, replaced, out))
    fresh.path.unlink()
    return written, pa.Table.from_pylist(entries, schema=ledger.ROWS)


def _merge(path: Path, index: pa.Table, fresh: Written, replaced: dict[str, list[str]], out: Path) -> pa.Table:
    """Copy members of `path` to `out`, those of `fresh` in place of the replaced pairs; return the new index."""
    rows_of_fresh = {row["key"]: row for row in fresh.index.to_pylist()}
    without_json = {row["key"] for row in index.to_pylist() if row["json_bytes"] is None}
    for key in replaced.keys() & without_json:  # a pair without KEY.json stays one
        for result in replaced[key]:
            rows_of_fresh[result] |= {"json_offset": None, "json_bytes": None}
    wanted = {row[f"{kind}_offset"] for row in rows_of_fresh.values() for kind in ("image", "text", "json")}
    members_of_fresh: dict[str, list[Member]] = {}
    for member in _members(fresh.path):
        if member.offset in wanted:
            members_of_fresh.setdefault(member.key, []).append(member)

    moved: dict[int, int] = {}  # content offset in `path` -> in `out`
    moved_of_fresh: dict[int, int] = {}
    done: set[str] = set()
    with _mapped(path) as old, _mapped(fresh.path) as new, open(out, "wb") as file:
        at = 0

        def copy(source: mmap.mmap, member: Member, places: dict[int, int]) -> None:
            nonlocal at
            places[member.offset] = at + member.offset - member.start
            at += file.write(source[member.start : member.end])

        for member in _members(path):
            if member.key not in replaced:
                copy(old, member, moved)
            elif member.key not in done:
                done.add(member.key)
                for key in replaced[member.key]:
                    for part in members_of_fresh[key]:
                        copy(new, part, moved_of_fresh)
        ending = 2 * tarfile.BLOCKSIZE
        file.write(b"\0" * (ending + -(at + ending) % tarfile.RECORDSIZE))
    assert done == set(replaced)

    rows: list[dict[str, Any]] = []
    for row in index.to_pylist():
        if row["outcome"] != shards.SUCCESS:
            rows.append(row)
        elif row["key"] not in replaced:
            rows.append(_placed(row, moved))
        else:
            for key in replaced[row["key"]]:
                twin = _placed(rows_of_fresh[key], moved_of_fresh)
                if key == row["key"]:  # the columns stay filled, or empty, as the original's were
                    twin |= {name: row[name] for name in ("url", "width", "height")}
                    known = row["source_sha256"] is not None
                    twin["source_sha256"] = (twin["source_sha256"] or twin["image_sha256"]) if known else None
                rows.append(twin)
    return pa.Table.from_pylist(rows, schema=shards.INDEX)


def _placed(row: dict[str, Any], places: dict[int, int]) -> dict[str, Any]:
    names = [name for name in ("image_offset", "text_offset", "json_offset") if row[name] is not None]
    return row | {name: places[row[name]] for name in names}


def _members(path: Path) -> Iterator[Member]:
    start = 0
    for name, offset, size in shards.scan(path):
        end = offset + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        folder, _, base = name.rpartition("/")
        stem = base.partition(".")[0]  # the key ends at the first dot of the file's name, as in WebDataset
        yield Member(f"{folder}/{stem}" if folder else stem, start, offset, end)
        start = end


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
