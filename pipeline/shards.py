"""A shard: a plain WebDataset tar of `KEY.jpg|png|webp`, `KEY.txt`, `KEY.json`, and an index of where each lies.

Ours are USTAR with mtime 0, so the same samples give the same bytes. Foreign ones (img2dataset, webdataset.ShardWriter)
are scanned header by header: Python's tarfile takes a damaged header for the end of the file.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import xxhash

from infra.spread import Lost

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
SUCCESS = "success"
INDEX = pa.schema(
    [
        ("row", pa.int64()),  # the row's number in its source table: the identity of a pair
        ("outcome", pa.string()),  # "success", or why the row is not in the tar
        ("key", pa.string()),
        ("caption", pa.string()),
        ("url", pa.string()),
        ("extension", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_sha256", pa.string()),  # of the bytes as downloaded
        ("image_sha256", pa.string()),  # of the bytes as stored
        ("image_offset", pa.int64()),
        ("image_bytes", pa.int64()),
        ("text_offset", pa.int64()),
        ("text_bytes", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_bytes", pa.int64()),
    ]
)


class Damaged(Lost):
    """A file that is not what its manifest says: short, changed, swapped or missing."""


@dataclass(frozen=True)
class Sample:
    """One pair as it is stored. image: encoded bytes; meta: the rest of KEY.json (url, sizes, hashes)."""

    key: str
    row: int
    image: bytes
    extension: str
    caption: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A shard on local disk, not yet committed."""

    path: Path
    index: pa.Table
    samples: int
    bytes: int
    sha256: str
    xxh3: str


def write_shard(path: Path, samples: Iterable[Sample], failures: Iterable[dict[str, Any]] = ()) -> Written:
    """Write samples in the order given. failures: index rows (row, outcome, caption, url) of pairs not here."""
    rows: list[dict[str, Any]] = []
    count = 0
    with open(path, "wb") as file, tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            places: dict[str, int] = {}
            caption = sample.caption.encode()
            record = json.dumps(
                sample.meta | {"row": sample.row, "key": sample.key, "caption": sample.caption},
                sort_keys=True,
                ensure_ascii=False,
            ).encode()
            members = (("image", sample.extension, sample.image), ("text", "txt", caption), ("json", "json", record))
            for member, extension, data in members:
                info = tarfile.TarInfo(f"{sample.key}.{extension}")  # mtime, uid and gid are 0, mode 0644
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                places |= {f"{member}_offset": file.tell() - padded, f"{member}_bytes": len(data)}
            rows.append(
                {
                    "row": sample.row,
                    "outcome": SUCCESS,
                    "key": sample.key,
                    "caption": sample.caption,
                    "url": sample.meta.get("url"),
                    "extension": sample.extension,
                    "width": sample.meta.get("width"),
                    "height": sample.meta.get("height"),
                    "source_sha256": sample.meta.get("sha256"),
                    "image_sha256": hashlib.sha256(sample.image).hexdigest(),
                }
                | places
            )
            count += 1
    index = pa.Table.from_pylist([*rows, *failures], schema=INDEX)
    return describe(path, index)


def describe(path: Path, index: pa.Table) -> Written:
    """Size and hashes of a shard on disk."""
    sha256, xxh3, size = hashes(path)
    return Written(path, index, samples_of(index).num_rows, size, sha256, xxh3)


def hashes(path: Path) -> tuple[str, str, int]:
    """(sha256, xxh3-64, bytes) of a file, read once."""
    strong, quick, size = hashlib.sha256(), xxhash.xxh3_64(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            strong.update(block)
            quick.update(block)
            size += len(block)
    return strong.hexdigest(), quick.hexdigest(), size


def read_parquet(data: bytes) -> pa.Table:
    """A parquet file in memory, read in this thread alone.

    `pq.read_table` leaves the Python file object to threads of its own; one of them letting go of it while the
    interpreter ends aborts the process ("terminate called without an active exception", one run in four).
    """
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)


def samples_of(index: pa.Table) -> pa.Table:
    """The rows of an index that have a sample in the tar, in tar order."""
    return index.filter(pa.compute.equal(index["outcome"], SUCCESS))


def read_shard(path: Path, index: pa.Table) -> Iterator[Sample]:
    """Samples of one shard, in tar order. The file must already be verified against its manifest."""
    with open(path, "rb") as file:
        for row in samples_of(index).to_pylist():
            yield read_sample(file, row)


def read_sample(file: BinaryIO, row: dict[str, Any]) -> Sample:
    """One sample by its index row."""

    def member(name: str) -> bytes:
        file.seek(row[f"{name}_offset"])
        data = file.read(row[f"{name}_bytes"])
        if len(data) != row[f"{name}_bytes"]:
            raise Damaged(f"{getattr(file, 'name', 'a shard')} ends inside sample {row['key']}")
        return data

    meta = json.loads(member("json")) if row["json_bytes"] is not None else {}
    meta = {name: value for name, value in meta.items() if name not in ("row", "key", "caption")}
    return Sample(row["key"], row["row"], member("image"), row["extension"], row["caption"], meta)


def scan(path: Path) -> Iterator[tuple[str, int, int]]:
    """(member name, offset, bytes) of each regular file of a tar, every header's checksum tested.

    Raises Damaged at the first byte that is not what a tar holds there, or if the end marker is missing.
    """
    size = path.stat().st_size
    name_override: str | None = None
    with open(path, "rb") as file:
        at = 0
        while True:
            header = file.read(tarfile.BLOCKSIZE)
            if len(header) < tarfile.BLOCKSIZE:
                raise Damaged(f"{path.name} is cut off: no end-of-archive marker after byte {at}")
            if not any(header):
                return
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                raise Damaged(f"{path.name} has a damaged header at byte {at}: {error}") from error
            start, padded = at + tarfile.BLOCKSIZE, -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            if info.size < 0 or start + padded > size:
                raise Damaged(f"{path.name} is cut off inside {info.name!r}, which starts at byte {at}")
            if info.type == tarfile.XHDTYPE:  # img2dataset writes one before every member, for its float mtime
                name_override = _pax_path(file.read(info.size)) or name_override
            elif info.type == tarfile.GNUTYPE_LONGNAME:
                name_override = file.read(info.size).rstrip(b"\0").decode()
            elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                yield name_override or info.name, start, info.size
                name_override = None
            elif info.type not in (tarfile.XGLTYPE, tarfile.DIRTYPE):
                raise Damaged(f"{path.name} holds {info.name!r}, which is a link or a device, not a file")
            at = start + padded
            file.seek(at)


def _pax_path(data: bytes) -> str | None:
    while data:
        length, _, _ = data.partition(b" ")
        record = data[: int(length)][len(length) + 1 : -1]
        name, _, value = record.partition(b"=")
        if name == b"path":
            return value.decode()
        data = data[int(length) :]
    return None


def index_foreign(path: Path) -> pa.Table:
    """The index of a shard that someone else wrote. Row id: 63 bits of a hash of picture and caption.

    Raises Damaged for a broken tar, ValueError for one that holds no image-caption pairs.
    """
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    for name, offset, length in scan(path):
        folder, _, base = name.rpartition("/")
        stem, _, extension = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        members = groups.setdefault(key, {})
        if extension.lower() in members:
            raise Damaged(f"{path.name} holds {name!r} twice")
        members[extension.lower()] = (offset, length)
    rows = []
    with open(path, "rb") as file:

        def content(place: tuple[int, int]) -> bytes:
            file.seek(place[0])
            return file.read(place[1])

        for key, members in groups.items():
            found = [kind for kind in IMAGE_EXTENSIONS if kind in members]
            if not found or "txt" not in members:
                raise ValueError(
                    f"{path.name}: {key!r} is not a picture with a .txt caption (it has {sorted(members)})"
                )
            extension = found[0]
            image, text = content(members[extension]), content(members["txt"])
            meta = json.loads(content(members["json"])) if "json" in members else {}
            try:
                caption = text.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"{path.name}: the caption of {key!r} is not UTF-8") from error
            identity = hashlib.sha256(hashlib.sha256(image).digest() + text).digest()
            rows.append(
                {
                    "row": int.from_bytes(identity[:8], "little") >> 1,
                    "outcome": SUCCESS,
                    "key": key,
                    "caption": caption,
                    "url": meta.get("url"),
                    "extension": extension,
                    "width": meta.get("width"),
                    "height": meta.get("height"),
                    "source_sha256": meta.get("sha256"),
                    "image_sha256": hashlib.sha256(image).hexdigest(),
                    "image_offset": members[extension][0],
                    "image_bytes": members[extension][1],
                    "text_offset": members["txt"][0],
                    "text_bytes": members["txt"][1],
                    "json_offset": members["json"][0] if "json" in members else None,
                    "json_bytes": members["json"][1] if "json" in members else None,
                }
            )
    if not rows:
        raise ValueError(f"{path.name} holds no image-caption pairs")
    return pa.Table.from_pylist(rows, schema=INDEX)


def content_hash(index: pa.Table) -> str:
    """sha256 of what a shard says (row, outcome, caption, picture), whatever its urls and its place."""
    digest = hashlib.sha256()
    columns = (index[name].to_pylist() for name in ("row", "outcome", "caption", "image_sha256"))
    for row in zip(*columns, strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def outcomes(index: pa.Table) -> dict[str, int]:
    """How many rows ended how; adds up to the rows of the table this shard was made from."""
    values, counts = np.unique(np.array(index["outcome"].to_pylist(), dtype=object).astype(str), return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}
