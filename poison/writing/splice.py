"""Tars cut at the borders of their files and joined anew: ranges of bytes, copied and hashed in one pass."""

import hashlib
import tarfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import xxhash

from infra.errors import Damaged
from pipeline import shards, tars

PLACES = ("image_offset", "text_offset", "json_offset")
MAX_BESIDE = 256 << 20  # bytes of a file of another tool, held in memory
BUFFER = 1 << 18  # fits the cache of a core: with 4 MiB the same copy took twice the processor time


@dataclass(frozen=True)
class Piece:
    """Bytes [start, end) of a file."""

    path: Path
    start: int
    end: int


@dataclass(frozen=True)
class Member:
    """One file of a tar with the headers before it: bytes [start, end), its content from `offset`.

    ending: what its name has behind the key's dot, as it is written there. size: bytes of its content.
    """

    key: str
    ending: str
    start: int
    offset: int
    size: int
    end: int

    @property
    def of_the_pair(self) -> bool:
        """Whether it is an image, a caption or a KEY.json; else it is another tool's file beside them."""
        return self.ending.lower() in (*shards.IMAGE_EXTENSIONS, "txt", "json")


def beside(path: Path, index: pa.Table) -> dict[str, dict[str, bytes]]:
    """By key, the files of other tools beside the pairs of a tar: {ending: bytes}. Raises Damaged, ValueError."""
    found: dict[str, dict[str, bytes]] = {}
    with open(path, "rb") as file:
        for member in cut(path, index, set(shards.samples_of(index)["key"].to_pylist()))[0]:
            if not member.of_the_pair:
                if member.size > MAX_BESIDE:
                    raise ValueError(
                        f"{path.name}: {member.key}.{member.ending} has {member.size:,} bytes; at most {MAX_BESIDE:,} "
                        "are carried into a sealed dataset"
                    )
                file.seek(member.offset)
                found.setdefault(member.key, {})[member.ending] = file.read(member.size)
    return found


def members(path: Path) -> Iterator[Member]:
    """Every file of a tar, in order; one begins where the one before ends. Raises Damaged."""
    start = 0
    for name, offset, size in shards.scan(path):
        end = offset + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")  # the key ends at the first dot of the file's name, as in WebDataset
        yield Member(f"{folder}/{stem}" if folder else stem, ending, start, offset, size, end)
        start = end


def cut(path: Path, index: pa.Table, keys: Collection[str]) -> tuple[list[Member], int]:
    """The files of a tar that belong to `keys`, in order, and where the last file of all ends.

    Raises Damaged, also for an index that places a sample's file where the tar has none.
    """
    found = _by_index(path, index, keys)
    if found is not None:
        return found
    every = list(members(path))
    listed = shards.samples_of(index)
    contents = [member.offset for member in every]
    if not all(np.isin(listed[name].drop_null().to_numpy(), contents).all() for name in PLACES):
        raise Damaged(f"the index of {path.name} places a file where there is none")
    return [member for member in every if member.key in keys], every[-1].end if every else 0


def _by_index(path: Path, index: pa.Table, keys: Collection[str]) -> tuple[list[Member], int] | None:
    """The same without reading every header in Python, for a tar that holds just what its index says; else None."""
    listed = shards.samples_of(index)
    places, names, numbers = [], [], []
    for member, extension in (("image", listed["extension"]), ("text", "txt"), ("json", "json")):
        there = listed[f"{member}_offset"].is_valid()
        names.append(pa.compute.binary_join_element_wise(listed["key"], extension, ".").filter(there).cast(pa.binary()))
        places.append([listed[f"{member}_{what}"].filter(there).to_numpy() for what in ("offset", "bytes")])
        numbers.append(np.flatnonzero(there))
    offsets, sizes = (np.concatenate(part) for part in zip(*places, strict=True))
    order = np.argsort(offsets)
    offsets, sizes, number = offsets[order], sizes[order], np.concatenate(numbers)[order]
    joined_names = np.array([name for part in names for name in part.to_pylist()], np.bytes_)[order]
    if not tars.plain(path, joined_names, offsets, sizes):
        return None
    # The tar is just these files in this order, each with one header: so each ends where the next one's header begins.
    borders = np.concatenate([[0], offsets + -(-sizes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE])
    key = listed["key"]
    wanted = np.flatnonzero(pa.compute.is_in(key, pa.array(keys, pa.string())))
    mine = [
        Member(own, name[len(own) + 1 :], int(borders[at]), int(offsets[at]), int(sizes[at]), int(borders[at + 1]))
        for at in np.flatnonzero(np.isin(number, wanted)).tolist()
        for own, name in [(key[int(number[at])].as_py(), joined_names[at].decode())]
    ]
    return mine, int(borders[-1])


def moved(pieces: Sequence[Piece], path: Path, offsets: np.ndarray) -> np.ndarray:
    """Where the bytes at `offsets` of `path` lie in the joined pieces: int64 (n,); anything for those left out."""
    # at: where each piece begins in the joined file. An offset lies in the last piece that begins at or before it.
    at = np.cumsum([0] + [piece.end - piece.start for piece in pieces])
    mine = sorted((piece.start, int(place)) for piece, place in zip(pieces, at, strict=False) if piece.path == path)
    starts, places = np.array(mine or [(0, 0)], np.int64).T
    number = np.searchsorted(starts, offsets, "right") - 1
    return np.asarray(offsets + (places - starts)[number])


def joined(pieces: Sequence[Piece], out: Path) -> tuple[str, str, int]:
    """Write the pieces one after another and end the tar. Returns (sha256, xxh3-64, bytes) of what was written.

    The hashes are made on the way, while a block is in the processor's cache; to read the whole file again for them
    took as long as the copy. Raises Damaged for a file that is shorter than its pieces.
    """
    strong, quick, size = hashlib.sha256(), xxhash.xxh3_64(), 0
    length = sum(piece.end - piece.start for piece in pieces) + 2 * tarfile.BLOCKSIZE
    tail = bytes(2 * tarfile.BLOCKSIZE + -length % tarfile.RECORDSIZE)
    with open(out, "wb") as file:
        for block in chain(_blocks(pieces), [memoryview(tail)]):
            strong.update(block)
            quick.update(block)
            size += file.write(block)
    return strong.hexdigest(), quick.hexdigest(), size


def _blocks(pieces: Sequence[Piece]) -> Iterator[memoryview]:
    """The bytes of the pieces, through one buffer: a block is valid until the next is asked for."""
    buffer, filled = memoryview(bytearray(BUFFER)), 0
    with ExitStack() as stack:
        files = {path: stack.enter_context(open(path, "rb", buffering=0)) for path in {one.path for one in pieces}}
        for piece in pieces:
            file, at = files[piece.path], piece.start
            file.seek(at)
            while at < piece.end:
                count = file.readinto(buffer[filled : filled + piece.end - at])
                if not count:
                    raise Damaged(f"{piece.path.name} ends before byte {piece.end}")
                at, filled = at + count, filled + count
                if filled == BUFFER:
                    yield buffer
                    filled = 0
    yield buffer[:filled]
